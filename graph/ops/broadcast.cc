// SPDX-License-Identifier: Apache-2.0
#include "graph/ops/broadcast.h"

namespace crease::ops {

Result<TensorType> BroadcastType(const InferContext& context, int first) {
  std::vector<const std::vector<Dim>*> operands;
  TensorType type;
  type.has_rank = true;
  for (int i = first; i < context.input_count(); ++i) {
    if (!context.has_input(i)) continue;
    type.has_rank = type.has_rank && context.input(i).has_rank;
    operands.push_back(&context.input(i).dims);
  }
  if (!type.has_rank) return type;
  CREASE_ASSIGN_OR_RETURN(type.dims, BroadcastDims(operands));
  return type;
}

}  // namespace crease::ops
