// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/transpose.h"

#include "graph/ops/common.h"
#include "graph/ops/eval.h"
#include "graph/ops/table.h"

namespace crease::ops {
namespace {

Result<void> InferTranspose(InferContext& context) {
  const TensorType& input = context.input(0);
  TensorType type = input;
  if (input.has_rank) {
    CREASE_ASSIGN_OR_RETURN(const std::vector<int> perm, ParseTranspose(context.node, input.rank()));
    for (size_t i = 0; i < perm.size(); ++i) type.dims[i] = input.dims[static_cast<size_t>(perm[i])];
  }
  SetOutput(context, 0, std::move(type));
  return {};
}

Result<std::vector<Tensor>> EvalTranspose(const EvalContext& context) {
  CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, AllocateOutputs(InferTranspose, context));
  CREASE_ASSIGN_OR_RETURN(const std::vector<int> perm, ParseTranspose(context.node, context.input(0).rank()));
  const std::vector<int64_t> dense = RowMajorStrides(context.input(0).shape());
  std::vector<int64_t> strides;
  for (int axis : perm) strides.push_back(dense[static_cast<size_t>(axis)]);
  GatherStrided(context.input(0), 0, strides, outputs[0]);
  return outputs;
}

}  // namespace

Result<std::vector<int>> ParseTranspose(const Node& node, int rank) {
  const auto count = static_cast<size_t>(rank);
  std::vector<int> perm;
  if (!HasAttr(node, "perm")) {
    for (int axis = rank; axis-- > 0;) perm.push_back(axis);
    return perm;
  }
  CREASE_ASSIGN_OR_RETURN(const std::vector<int64_t> values, AttrInts(node, "perm", {}));
  if (values.size() != count) {
    return InvalidModel("attribute 'perm' must have ", rank, " values, it is ", ToString(values));
  }
  std::vector<bool> seen(count, false);
  for (int64_t value : values) {
    if (value < 0 || value >= rank || seen[static_cast<size_t>(value)]) {
      return InvalidModel("attribute 'perm' must be a permutation of [0, ", rank, "), it is ", ToString(values));
    }
    seen[static_cast<size_t>(value)] = true;
    perm.push_back(static_cast<int>(value));
  }
  return perm;
}

const OpDef kTranspose = {"Transpose", "", 7, 1, 1, 1, 1, InferTranspose, EvalTranspose};

}  // namespace crease::ops
