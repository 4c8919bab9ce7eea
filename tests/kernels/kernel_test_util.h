// SPDX-License-Identifier: Apache-2.0
// Runs a kernel on a small case and compares it with the operator's definition in double precision: on
// every target, with 1 to 3 workers (the same bits wanted), misaligned, with pitches, checking that
// nothing outside the output is written.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "graph/op.h"
#include "kernels/kernels.h"
#include "kernels/loop_nest.h"
#include "kernels/targets.h"
#include "tests/reference/epilogue.h"
#include "tests/support/threads_executor.h"

namespace crease::test {

using Definition = std::function<Result<std::vector<Tensor>>(const EvalContext&)>;

struct KernelCase {
  Node node;
  int opset = 17;
  std::vector<Tensor> inputs;      // float32, or what the operator wants; undefined: absent
  std::vector<bool> constant;      // by input; missing: false
  std::optional<Tensor> residual;  // float32
  Epilogue epilogue;
  bool channels_last = false;
  int64_t src_extra = 0, dst_extra = 0;  // pitch beyond the channels
  bool in_place = false;                 // dst is input 0 (same shape)
  Layout src_layout_override = Layout::kPlain, dst_layout_override = Layout::kPlain;
  bool mixed = false;     // use the two above for input 0 and output 0
  bool measured = false;  // asked for by name
  double relative = 0, absolute = 0;
  Definition definition;  // null: the operator table's
};

inline Node MakeNode(std::string op_type, std::vector<Attribute> attributes = {}, std::string_view domain = "",
                     int outputs = 1) {
  Node node;
  node.op_type = std::move(op_type);
  node.domain = domain;
  node.attributes = std::move(attributes);
  for (int i = 0; i < outputs; ++i) node.outputs.push_back(i);
  return node;
}

inline Tensor RandomTensor(const Shape& shape, uint32_t seed, float low = -3, float high = 3) {
  Tensor tensor = Tensor::Allocate(DType::kFloat32, shape).value();
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  for (int64_t i = 0; i < tensor.size(); ++i) tensor.mutable_data<float>()[i] = uniform(random);
  return tensor;
}

inline Tensor Ints(std::initializer_list<int64_t> values) {
  return Tensor::From<int64_t>({static_cast<int64_t>(values.size())}, values);
}

// A tensor's elements somewhere in a larger, misaligned, marked buffer.
class Storage {
 public:
  Storage(const Shape& shape, DType dtype, Layout layout, int64_t extra)
      : shape_(shape),
        dtype_(dtype),
        layout_(shape.size() >= 3 ? layout : Layout::kPlain),
        pitch_(layout_ == Layout::kChannelsLast ? shape[1] + extra : 0),
        strides_(StorageStrides(shape, layout_, pitch_)) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    if (layout_ == Layout::kChannelsLast && shape[1] > 0) count = count / shape[1] * pitch_;
    bytes_.assign((static_cast<size_t>(count) + 64) * ByteSize(dtype), kMark);
  }

  void* data() { return bytes_.data() + ByteSize(dtype_); }  // one element past an aligned address
  Operand operand(const Tensor* constant) const { return {true, dtype_, shape_, layout_, pitch_, constant}; }
  TensorView view() {
    TensorView view{data(), dtype_, layout_, static_cast<int>(shape_.size()), {}, pitch_};
    std::copy(shape_.begin(), shape_.end(), view.dims.begin());
    return view;
  }

  template <typename F>
  void ForEach(F f) {  // f(row-major index, offset in elements)
    int64_t count = 1;
    for (const int64_t dim : shape_) count *= dim;
    for (int64_t i = 0; i < count; ++i) {
      int64_t offset = 0, rest = i;
      for (size_t axis = shape_.size(); axis-- > 0;) {
        offset += rest % shape_[axis] * strides_[axis];
        rest /= shape_[axis];
      }
      f(i, static_cast<size_t>(offset));
    }
  }

  void Fill(const Tensor& tensor) {
    const size_t size = ByteSize(dtype_);
    ForEach([&](int64_t i, size_t offset) {
      std::memcpy(static_cast<std::byte*>(data()) + offset * size, tensor.bytes() + static_cast<size_t>(i) * size,
                  size);
    });
  }
  Tensor Read() {
    Tensor tensor = Tensor::Allocate(dtype_, shape_).value();
    const size_t size = ByteSize(dtype_);
    ForEach([&](int64_t i, size_t offset) {
      std::memcpy(tensor.mutable_data<std::byte>() + static_cast<size_t>(i) * size,
                  static_cast<std::byte*>(data()) + offset * size, size);
    });
    return tensor;
  }
  bool MarksIntact() {
    const size_t size = ByteSize(dtype_);
    std::vector<bool> used(bytes_.size() / size, false);
    ForEach([&](int64_t, size_t offset) { used[offset + 1] = true; });
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (!used[i / size] && bytes_[i] != kMark) return false;
    }
    return true;
  }

 private:
  static constexpr std::byte kMark{0xA5};
  Shape shape_;
  DType dtype_;
  Layout layout_;
  int64_t pitch_;
  std::vector<int64_t> strides_;
  std::vector<std::byte> bytes_;
};

inline Result<std::vector<Tensor>> Define(const KernelCase& c) {
  std::vector<Tensor> wide(c.inputs.size());
  std::vector<const Tensor*> pointers(c.inputs.size());
  for (size_t i = 0; i < wide.size(); ++i) {
    if (!c.inputs[i].defined()) continue;
    wide[i] = IsFloat(c.inputs[i].dtype()) ? c.inputs[i].ConvertedTo(DType::kFloat64).value() : c.inputs[i];
    pointers[i] = &wide[i];
  }
  const EvalContext context{c.node, c.opset, pointers, static_cast<int>(c.node.outputs.size())};
  std::vector<Tensor> results;
  if (c.definition) {
    CREASE_ASSIGN_OR_RETURN(results, c.definition(context));
  } else {
    const OpDef* op = FindOp(c.node.domain, c.node.op_type, c.opset);
    if (op == nullptr) return Error{ErrorCode::kUnsupported, "no definition of " + c.node.op_type, ""};
    CREASE_ASSIGN_OR_RETURN(results, op->eval(context));
  }
  if (c.epilogue.empty()) return results;
  Tensor y = Tensor::Allocate(DType::kFloat64, results[0].shape()).value();
  for (int64_t i = 0; i < y.size(); ++i) {
    y.mutable_data<double>()[i] = Finish(c.epilogue, results[0].AsDouble(i), c.residual ? c.residual->AsDouble(i) : 0);
  }
  results[0] = y;
  return results;
}

inline const KernelEntry* FindEntry(std::string_view op_type, std::string_view kernel) {
  for (const KernelEntry& entry : KernelsFor(op_type)) {
    if (entry.name == kernel) return &entry;
  }
  return nullptr;
}

// The same values at an odd address, as a file's weights may lie.
inline Tensor AtOddAddress(const Tensor& tensor) {
  const auto bytes = std::make_shared<std::vector<std::byte>>(tensor.byte_size() + 1);
  if (tensor.byte_size() > 0) std::memcpy(bytes->data() + 1, tensor.bytes(), tensor.byte_size());
  return Tensor::View(tensor.dtype(), tensor.shape(), {bytes->data() + 1, tensor.byte_size()}, bytes).value();
}

// The outputs of one run, or the refusal.
inline Result<std::vector<Tensor>> RunOnce(const KernelCase& c, std::string_view kernel_name,
                                           const std::vector<Tensor>& expected, int workers) {
  const KernelEntry* entry = FindEntry(c.node.op_type, kernel_name);
  if (entry == nullptr) return Error{ErrorCode::kInternal, "no such kernel", ""};
  std::vector<Storage> src, dst;
  std::vector<Operand> src_operands, dst_operands;
  const Layout layout = c.channels_last ? Layout::kChannelsLast : Layout::kPlain;
  const auto constant = [&](size_t i) { return i < c.constant.size() && c.constant[i]; };
  std::vector<Tensor> inputs = c.inputs;
  if (c.residual) inputs.push_back(*c.residual);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (constant(i) && inputs[i].defined()) inputs[i] = AtOddAddress(inputs[i]);
    const Tensor& t = inputs[i];
    const Layout own = c.mixed && i == 0 ? c.src_layout_override : constant(i) ? Layout::kPlain : layout;
    src.emplace_back(t.defined() ? t.shape() : Shape{}, t.defined() ? t.dtype() : DType::kFloat32, own, c.src_extra);
    src_operands.push_back(t.defined() ? src.back().operand(constant(i) ? &inputs[i] : nullptr) : Operand{});
    if (t.defined()) src.back().Fill(t);
  }
  for (const Tensor& t : expected) {
    const DType dtype = t.dtype() == DType::kFloat64 ? DType::kFloat32 : t.dtype();
    dst.emplace_back(t.shape(), dtype, c.mixed ? c.dst_layout_override : layout,
                     c.in_place ? c.src_extra : c.dst_extra);
    dst_operands.push_back(dst.back().operand(nullptr));
  }
  ThreadsExecutor executor(workers);
  KernelRequest request{c.node, c.opset, src_operands, dst_operands, {}, {}};
  request.epilogue = c.epilogue;
  request.workers = workers;
  request.measured = c.measured;
  CREASE_ASSIGN_OR_RETURN(const std::unique_ptr<Kernel> kernel, entry->make(request));
  std::vector<ConstTensorView> src_views;
  std::vector<TensorView> dst_views;
  for (size_t i = 0; i < src.size(); ++i) {
    TensorView view = src[i].view();
    if (!inputs[i].defined()) view.data = nullptr;
    src_views.push_back(view);
  }
  for (Storage& s : dst) dst_views.push_back(s.view());
  if (c.in_place) dst_views[0] = src[0].view();
  std::vector<std::byte> scratch(kernel->scratch_bytes(workers) + 64);
  auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) & ~uintptr_t{63});
  kernel->Run({executor, aligned}, src_views, dst_views);
  std::vector<Tensor> results;
  for (size_t i = 0; i < dst.size(); ++i) {
    Storage& from = c.in_place && i == 0 ? src[0] : dst[i];
    if (!from.MarksIntact()) return Error{ErrorCode::kInternal, "wrote outside the output", ""};
    results.push_back(from.Read());
  }
  return results;
}

inline void Compare(const KernelCase& c, const Tensor& got, const Tensor& want, const std::string& what) {
  ASSERT_EQ(got.shape(), want.shape()) << what;
  for (int64_t i = 0; i < got.size(); ++i) {
    const double x = got.AsDouble(i), y = want.AsDouble(i);
    if (std::isnan(x) && std::isnan(y)) continue;
    if (x == y) continue;
    ASSERT_LE(std::fabs(x - y), c.absolute + c.relative * std::fabs(y))
        << what << " at " << i << ": " << x << " is not " << y;
  }
}

inline void CheckKernel(const KernelCase& c, std::string_view kernel) {
  const Result<std::vector<Tensor>> expected = Define(c);
  ASSERT_TRUE(expected.ok()) << c.node.op_type << ": " << expected.error().ToString();
  ForEachTarget([&](const char* target) {
    std::vector<Tensor> first;
    for (int workers = 1; workers <= 3; ++workers) {
      std::string what = c.node.op_type + " " + ToString(c.inputs[0].shape()) + " on " + target;
      if (c.channels_last) what += " channels-last";
      auto got = RunOnce(c, kernel, *expected, workers);
      ASSERT_TRUE(got.ok()) << what << ": " << got.error().ToString();
      ASSERT_EQ(got->size(), expected->size());
      for (size_t i = 0; i < got->size(); ++i) {
        Compare(c, (*got)[i], (*expected)[i], what);
        if (workers == 1) continue;
        ASSERT_EQ(std::memcmp((*got)[i].bytes(), first[i].bytes(), first[i].byte_size()), 0)
            << what << ": other bits with " << workers << " workers";
      }
      if (workers == 1) first = *got;
    }
  });
}

// In every layout the kernel takes: plain; channels-last dense, and with pitches.
inline void CheckLayouts(KernelCase c, std::string_view kernel, bool plain = true, bool channels_last = true) {
  if (plain) {
    c.channels_last = false;
    CheckKernel(c, kernel);
  }
  if (!channels_last || c.inputs[0].rank() < 3) return;
  c.channels_last = true;
  CheckKernel(c, kernel);
  c.src_extra = 5;
  c.dst_extra = 3;
  CheckKernel(c, kernel);
}

// The refusal's reason; empty if the kernel was made and run.
inline std::string Refusal(const KernelCase& c, std::string_view kernel) {
  const auto expected = Define(c);
  if (!expected.ok()) return "definition: " + expected.error().ToString();
  const auto got = RunOnce(c, kernel, *expected, 1);
  return got.ok() ? "" : got.error().message;
}

}  // namespace crease::test
