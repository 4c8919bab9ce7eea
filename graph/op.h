// SPDX-License-Identifier: Apache-2.0
// What an operator is: its name, opsets, arity, how types and shapes follow, and its meaning in
// double precision. One file of graph/ops defines one operator or one tight family.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "graph/graph.h"

namespace crease {

// What a rule knows of a node: types always; constants where the value is known before the run
// (weights, and int64 shape arithmetic that was folded on the way).
class InferContext {
 public:
  InferContext(const Node& of_node, int model_opset, std::span<const TensorType* const> inputs,
               std::span<const Tensor* const> constants, std::span<TensorType> outputs,
               std::span<const std::vector<Dim>* const> shape_values = {}, bool values_are_checked = true)
      : node(of_node),
        opset(model_opset),
        check_values(values_are_checked),
        inputs_(inputs),
        constants_(constants),
        outputs_(outputs),
        shape_values_(shape_values) {}

  const Node& node;
  const int opset;
  const bool check_values;  // of constants: whether a batch-norm's variances make sense

  int input_count() const { return static_cast<int>(inputs_.size()); }
  int output_count() const { return static_cast<int>(outputs_.size()); }
  bool has_input(int i) const { return i < input_count() && inputs_[static_cast<size_t>(i)] != nullptr; }
  const TensorType& input(int i) const { return *inputs_[static_cast<size_t>(i)]; }  // needs has_input(i)
  // The input's value if it is known, else null.
  const Tensor* constant(int i) const { return i < input_count() ? constants_[static_cast<size_t>(i)] : nullptr; }
  // The elements of an integer input of rank 0 or 1 that comes from a Shape, as far as they are known
  // (symbols included), else null. Only where constant(i) is null.
  const std::vector<Dim>* shape_value(int i) const {
    return i < static_cast<int>(shape_values_.size()) ? shape_values_[static_cast<size_t>(i)] : nullptr;
  }
  TensorType& output(int i) { return outputs_[static_cast<size_t>(i)]; }
  bool has_output(int i) const { return i < output_count() && node.outputs[static_cast<size_t>(i)] != kNone; }

 private:
  std::span<const TensorType* const> inputs_;
  std::span<const Tensor* const> constants_;
  std::span<TensorType> outputs_;
  std::span<const std::vector<Dim>* const> shape_values_;
};

// Inputs of the slow, obvious meaning. Floating tensors arrive as float64 whatever the file's dtype
// and leave as float64; integers and bools keep theirs. Absent inputs are null.
struct EvalContext {
  const Node& node;
  int opset;
  std::span<const Tensor* const> inputs;
  int output_count;

  bool has(int i) const { return i < static_cast<int>(inputs.size()) && inputs[static_cast<size_t>(i)]; }
  const Tensor& input(int i) const { return *inputs[static_cast<size_t>(i)]; }
};

struct OpDef {
  std::string_view name;
  std::string_view domain;       // "" is ai.onnx
  int min_opset;                 // first ai.onnx opset whose meaning this definition covers
  int min_inputs, max_inputs;    // max < 0: variadic
  int min_outputs, max_outputs;  // likewise
  // Sets every output's type as far as inputs tell; fails on what the operator forbids (bad
  // attributes, ranks, lengths), saying what was expected and found. The caller adds the node's name.
  // Unknown ranks and dimensions are no error.
  Result<void> (*infer)(InferContext& context);
  // Shapes are known and were inferred; fails only on what no shape rule can see.
  Result<std::vector<Tensor>> (*eval)(const EvalContext& context);
};

// The definition, or null. Versions older than min_opset count as unknown.
const OpDef* FindOp(std::string_view domain, std::string_view op_type, int opset);

// Every definition, sorted by name (graph/ops/table.cc).
std::span<const OpDef* const> AllOps();

// Typed reading of attributes. Errors: another type than asked for.
Result<int64_t> AttrInt(const Node& node, std::string_view name, int64_t fallback);
Result<float> AttrFloat(const Node& node, std::string_view name, float fallback);
Result<std::string> AttrString(const Node& node, std::string_view name, std::string_view fallback);
Result<std::vector<int64_t>> AttrInts(const Node& node, std::string_view name, std::vector<int64_t> fallback);
Result<std::vector<float>> AttrFloats(const Node& node, std::string_view name, std::vector<float> fallback);
bool HasAttr(const Node& node, std::string_view name);

// Makes attributes for nodes that passes and tests build.
Attribute MakeAttr(std::string_view name, int64_t value);
Attribute MakeAttr(std::string_view name, float value);
Attribute MakeAttr(std::string_view name, std::string_view value);
Attribute MakeAttr(std::string_view name, std::vector<int64_t> value);
Attribute MakeAttr(std::string_view name, std::vector<float> value);
Attribute MakeAttr(std::string_view name, Tensor value);

// Types of every value, in order, from the graph inputs' types (those given override the file's) and
// from constants; integers and bools of up to 1,024 elements and floats of up to 64 are computed where
// they can be. Nothing is known of the outputs of operators without a definition. Errors name the node.
struct InferredTypes {
  std::vector<TensorType> types;  // by ValueId
  std::vector<Tensor> constants;  // by ValueId; undefined() where unknown. Initializers included.
};
struct InputOverride {
  ValueId value;
  TensorType type;
};
// Not strict, as passes are: a batch-norm with a bad variance, and an operator in a form that Crease has no
// implementation for, are no errors. A fold leaves them as they are, and says so.
Result<InferredTypes> InferTypes(const Graph& graph, std::span<const InputOverride> overrides = {}, bool strict = true);

}  // namespace crease
