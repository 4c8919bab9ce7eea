// SPDX-License-Identifier: Apache-2.0
#include "runtime/rectified.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace crease {
namespace {

bool IsOneOf(std::string_view type, std::initializer_list<std::string_view> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

bool MakesZeros(const Epilogue& epilogue) {
  if (epilogue.residual == Residual::kAfterActivation) return false;
  const Activation activation = epilogue.activation;
  return activation == Activation::kRelu || activation == Activation::kHardSwish ||
         activation == Activation::kHardSigmoid || (activation == Activation::kClip && epilogue.a == 0);
}

}  // namespace

std::vector<bool> FindRectified(const Program& program) {
  std::vector<bool> rectified(program.values.size());
  for (const ProgramOp& op : program.ops) {
    if (op.node.outputs.empty()) continue;
    const auto is = [&](ValueId id) { return id != kNone && rectified[static_cast<size_t>(id)]; };
    const std::vector<ValueId>& inputs = op.node.inputs;
    bool yes = MakesZeros(op.epilogue) || IsOneOf(op.type(), {"Relu", "HardSwish", "HardSigmoid"});
    if (!yes && op.epilogue.empty()) {
      if (IsOneOf(op.type(), {"Reshape", "Transpose", "Split", "Slice", "ChannelShuffle", "Pad", "Identity", "Dropout",
                              "MaxPool"})) {
        yes = is(op.input(0));
      } else if (op.type() == "Concat") {
        yes = std::all_of(inputs.begin(), inputs.end(), is);
      } else if (op.type() == "Mul") {  // a gate
        yes = std::any_of(inputs.begin(), inputs.end(), is);
      }
    }
    if (!yes) continue;
    for (const ValueId id : op.node.outputs) {
      if (id != kNone) rectified[static_cast<size_t>(id)] = true;
    }
  }
  return rectified;
}

}  // namespace crease
