// SPDX-License-Identifier: Apache-2.0
// One node by itself, for tests of operator definitions.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "graph/interpreter.h"
#include "graph/op.h"

namespace crease::test {

inline Tensor Floats(Shape shape, std::vector<float> values) {
  return Tensor::From<float>(std::move(shape), std::span<const float>(values));
}
inline Tensor Ints(Shape shape, std::vector<int64_t> values) {
  return Tensor::From<int64_t>(std::move(shape), std::span<const int64_t>(values));
}
inline Tensor Ints(std::vector<int64_t> values) {
  const auto count = static_cast<int64_t>(values.size());
  return Ints({count}, std::move(values));
}
// Values 0, 1, 2, ...
inline Tensor Counting(Shape shape) {
  std::vector<float> values(static_cast<size_t>(*ElementCount(shape)));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return Floats(std::move(shape), std::move(values));
}

// An operator, its attributes and its inputs; an undefined Tensor is an absent input.
struct OpCase {
  std::string op_type;
  int opset = 17;
  std::vector<Tensor> inputs;
  std::vector<Attribute> attributes;
  int outputs = 1;

  Node MakeNode() const {
    Node node;
    node.op_type = op_type;
    for (size_t i = 0; i < inputs.size(); ++i) {
      node.inputs.push_back(inputs[i].defined() ? static_cast<ValueId>(i) : kNone);
    }
    for (int i = 0; i < outputs; ++i) node.outputs.push_back(static_cast<ValueId>(inputs.size()) + i);
    node.attributes = attributes;
    return node;
  }

  Result<std::vector<Tensor>> Evaluate() const {
    std::vector<const Tensor*> pointers;
    for (const Tensor& input : inputs) pointers.push_back(input.defined() ? &input : nullptr);
    return EvaluateNode(MakeNode(), opset, pointers);
  }
};

// The type of output 0 for inputs of these types; the values of `constants` (by input) are known.
inline Result<TensorType> InferOne(const OpCase& op, const std::vector<TensorType>& types) {
  const Node node = op.MakeNode();
  const OpDef* definition = FindOp("", op.op_type, op.opset);
  if (!definition) return Error{ErrorCode::kInternal, "unknown operator " + op.op_type, ""};
  std::vector<const TensorType*> inputs;
  std::vector<const Tensor*> constants;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    const bool constant = i >= types.size();
    inputs.push_back(constant && !op.inputs[i].defined() ? nullptr : &types[i]);
    constants.push_back(constant && op.inputs[i].defined() ? &op.inputs[i] : nullptr);
  }
  std::vector<TensorType> all = types;
  for (size_t i = types.size(); i < op.inputs.size(); ++i) {
    all.push_back(op.inputs[i].defined() ? TensorType::Of(op.inputs[i].dtype(), op.inputs[i].shape()) : TensorType{});
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i]) inputs[i] = &all[i];
  }
  std::vector<TensorType> outputs(node.outputs.size());
  InferContext context(node, op.opset, inputs, constants, outputs);
  if (Result<void> result = definition->infer(context); !result.ok()) return result.error();
  return outputs[0];
}

inline void ExpectTensor(const Tensor& tensor, const Shape& shape, const std::vector<double>& values,
                         double tolerance = 1e-6) {
  ASSERT_EQ(tensor.shape(), shape);
  ASSERT_EQ(static_cast<size_t>(tensor.size()), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const double found = tensor.AsDouble(static_cast<int64_t>(i));
    if (std::isnan(values[i])) {
      EXPECT_TRUE(std::isnan(found)) << "element " << i << " is " << found;
    } else if (std::isinf(values[i])) {
      EXPECT_EQ(found, values[i]) << "element " << i;
    } else {
      EXPECT_NEAR(found, values[i], tolerance * std::max(1.0, std::fabs(values[i]))) << "element " << i;
    }
  }
}

// Output 0 of the case; float values within `tolerance`, absolute below 1 and relative above.
inline void ExpectValues(const OpCase& op, const Shape& shape, const std::vector<double>& values,
                         double tolerance = 1e-6) {
  const Result<std::vector<Tensor>> outputs = op.Evaluate();
  ASSERT_TRUE(outputs.ok()) << op.op_type << ": " << outputs.error().ToString();
  ExpectTensor((*outputs)[0], shape, values, tolerance);
}

// The case fails, with a message that has every part in it.
inline void ExpectFailure(const OpCase& op, const std::vector<std::string>& parts) {
  const Result<std::vector<Tensor>> outputs = op.Evaluate();
  ASSERT_FALSE(outputs.ok()) << op.op_type << " must fail";
  for (const std::string& part : parts) {
    EXPECT_NE(outputs.error().message.find(part), std::string::npos) << outputs.error().message << " lacks: " << part;
  }
}

inline std::vector<int64_t> IntList(std::initializer_list<int64_t> values) { return values; }

}  // namespace crease::test
