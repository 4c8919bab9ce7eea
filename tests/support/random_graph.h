// SPDX-License-Identifier: Apache-2.0
// Random networks for the folding tests: every operator that a map meets, with awkward maps.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "graph/op.h"

namespace crease::testing {

struct RandomGraphOptions {
  DType dtype = DType::kFloat64;
  bool awkward = true;  // scales that are zero, negative, 1e-15 to 1e15; else in [0.5, 1.5]
};

class RandomGraph {
 public:
  RandomGraph(uint64_t seed, const RandomGraphOptions& options) : random_(seed), options_(options) {}

  // A valid graph whose input dimensions may be declared unknown; Inputs() has sizes that fit.
  Result<Graph> Build();
  std::map<std::string, Tensor> Inputs() const { return inputs_; }

 private:
  struct Live {
    ValueId id;
    Shape shape;
  };

  int64_t Int(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random_() % static_cast<uint64_t>(high - low + 1));
  }
  bool Chance(int percent) { return Int(1, 100) <= percent; }
  double Uniform(double low, double high) {
    return low + (high - low) * (static_cast<double>(random_() >> 11) * 0x1p-53);
  }
  double Normal() { return Uniform(-1, 1) + Uniform(-1, 1) + Uniform(-1, 1); }
  double ScaleValue();

  ValueId Constant(Shape shape, const std::vector<double>& values);
  ValueId NormalConstant(Shape shape);
  ValueId Ints(const std::vector<int64_t>& values);
  std::string Fresh(const char* stem) { return stem + std::to_string(++names_); }
  const Live& Pick();
  Live Emit(const char* op, std::vector<ValueId> inputs, Shape shape, std::vector<Attribute> attributes = {});

  void AddInput(int spatial_rank);
  void Step();
  void Conv(const Live& x);
  void ConvTranspose(const Live& x);
  void BatchNorm(const Live& x);
  void Arithmetic(const Live& x);
  void Activation(const Live& x);
  void Pool(const Live& x);
  void Concat(const Live& x);
  void Residual(const Live& x);
  void Pad(const Live& x);
  void Slice(const Live& x);
  void Split(const Live& x);
  void Move(const Live& x);
  void Resize(const Live& x);
  void Matrix(const Live& x);
  void Depth(const Live& x);

  std::mt19937_64 random_;
  RandomGraphOptions options_;
  GraphBuilder builder_;
  std::vector<Live> live_;
  std::vector<std::pair<ValueId, Shape>> weights_;  // for sharing
  std::map<std::string, Tensor> inputs_;
  int names_ = 0;
};

}  // namespace crease::testing
