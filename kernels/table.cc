// SPDX-License-Identifier: Apache-2.0
// Which kernels an operator has, best first. One section a family; where two families serve an
// operator, the earlier section of kSections is asked first, and the reference kernel last.
#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <vector>

#include "kernels/kernels.h"

namespace crease {
namespace {

using Section = std::span<const KernelEntry>;

constexpr KernelEntry kDense[] = {
    {"Conv", "vector", LayoutRule::kChannelsLast, MakeConvVector},
    {"Conv", "depthwise", LayoutRule::kChannelsLast, MakeDepthwise},
    {"Conv", "winograd_f4", LayoutRule::kChannelsLast, MakeWinogradF4},
    {"Conv", "winograd_f3", LayoutRule::kChannelsLast, MakeWinogradF3},
    {"Conv", "winograd_f2", LayoutRule::kChannelsLast, MakeWinogradF2},
    {"Conv", "groups", LayoutRule::kChannelsLast, MakeGroupConv},
    {"Conv", "space_to_depth", LayoutRule::kMixed, MakeConvSpaceToDepth},
    {"Conv", "planes", LayoutRule::kMixed, MakeConvPlanes},
    {"Conv", "amx", LayoutRule::kChannelsLast, MakeConvAmx},
    {"Conv", "sparse", LayoutRule::kChannelsLast, MakeConvSparse},
    {"Conv", "strassen", LayoutRule::kChannelsLast, MakeConvStrassen},
    {"Conv", "gemm", LayoutRule::kChannelsLast, MakeConvGemm},
    {"ConvTranspose", "phases", LayoutRule::kChannelsLast, MakeConvTransposePhases},
    {"ConvTranspose", "gemm", LayoutRule::kChannelsLast, MakeConvTranspose},
    {"Gemm", "gemm", LayoutRule::kPlain, MakeGemm},
    {"MatMul", "gemm", LayoutRule::kPlain, MakeMatMul},
};

#if CREASE_HAS_ONEDNN
constexpr KernelEntry kOneDnn[] = {
    {"Conv", "onednn", LayoutRule::kChannelsLast, MakeOneDnnConv},
    {"ConvTranspose", "onednn", LayoutRule::kChannelsLast, MakeOneDnnConvTranspose},
    {"Gemm", "onednn", LayoutRule::kPlain, MakeOneDnnGemm},
    {"MatMul", "onednn", LayoutRule::kPlain, MakeOneDnnMatMul},
};
#else
constexpr Section kOneDnn{};
#endif

constexpr KernelEntry kElementwise[] = {
    {"BatchNormalization", "affine", LayoutRule::kAny, MakeAffine},
    {"BatchNormalization", "batch_norm", LayoutRule::kAny, MakeBatchNorm},
    {"Affine", "affine", LayoutRule::kAny, MakeAffine},
    {"Identity", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Dropout", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Abs", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Neg", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Sqrt", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Reciprocal", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Exp", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Erf", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Floor", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Ceil", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Round", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Softplus", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Log", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Add", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Sum", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Sub", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Mul", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Div", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Max", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Min", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Pow", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"PRelu", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Relu", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"LeakyRelu", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"HardSwish", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"HardSigmoid", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Sigmoid", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Silu", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Tanh", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Elu", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Gelu", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Mish", "elementwise", LayoutRule::kAny, MakeElementwise},
    {"Clip", "elementwise", LayoutRule::kAny, MakeElementwise},
};

constexpr KernelEntry kMoves[] = {
    {"Reorder", "copy", LayoutRule::kMixed, MakeCopy},
    {"Reshape", "copy", LayoutRule::kMixed, MakeCopy},
    {"Flatten", "copy", LayoutRule::kMixed, MakeCopy},
    {"Squeeze", "copy", LayoutRule::kMixed, MakeCopy},
    {"Unsqueeze", "copy", LayoutRule::kMixed, MakeCopy},
    {"Identity", "copy", LayoutRule::kMixed, MakeCopy},
    {"Dropout", "copy", LayoutRule::kMixed, MakeCopy},
    {"Transpose", "copy", LayoutRule::kMixed, MakeTranspose},
    {"Concat", "copy", LayoutRule::kAny, MakeConcat},
    {"Split", "copy", LayoutRule::kAny, MakeSplit},
    {"Slice", "copy", LayoutRule::kAny, MakeSlice},
    {"Pad", "copy", LayoutRule::kAny, MakePad},
    {"Tile", "copy", LayoutRule::kAny, MakeTile},
    {"ChannelShuffle", "copy", LayoutRule::kAny, MakeChannelShuffle},
    {"DepthToSpace", "copy", LayoutRule::kAny, MakeDepthSpace},
    {"SpaceToDepth", "copy", LayoutRule::kAny, MakeDepthSpace},
    {"Expand", "copy", LayoutRule::kPlain, MakeExpand},
    {"Gather", "copy", LayoutRule::kPlain, MakeGather},
};

constexpr KernelEntry kWindows[] = {
    {"MaxPool", "pool", LayoutRule::kChannelsLast, MakePool},
    {"AveragePool", "pool", LayoutRule::kChannelsLast, MakePool},
    {"Resize", "resize", LayoutRule::kChannelsLast, MakeResize},
    {"Upsample", "resize", LayoutRule::kChannelsLast, MakeResize},
    {"GlobalAveragePool", "reduce", LayoutRule::kAny, MakeReduce},
    {"GlobalMaxPool", "reduce", LayoutRule::kAny, MakeReduce},
    {"ReduceMean", "reduce", LayoutRule::kAny, MakeReduce},
    {"ReduceSum", "reduce", LayoutRule::kAny, MakeReduce},
    {"ReduceMax", "reduce", LayoutRule::kAny, MakeReduce},
    {"ReduceMin", "reduce", LayoutRule::kAny, MakeReduce},
    {"Softmax", "softmax", LayoutRule::kAny, MakeSoftmax},
    {"LogSoftmax", "softmax", LayoutRule::kAny, MakeSoftmax},
};

// Rows in the order of the sections, grouped by operator, a reference row at the end of each group.
class Table {
 public:
  explicit Table(std::span<const Section> sections) {
    std::map<std::string_view, std::vector<KernelEntry>> by_op;
    for (const Section section : sections) {
      for (const KernelEntry& entry : section) by_op[entry.op_type].push_back(entry);
    }
    for (auto& [op_type, entries] : by_op) {
      entries.push_back({op_type, kReferenceName, LayoutRule::kPlain, MakeReference});
    }
    by_op_ = std::move(by_op);
  }

  std::span<const KernelEntry> Find(std::string_view op_type) const {
    const auto found = by_op_.find(op_type);
    if (found != by_op_.end()) return found->second;
    static constexpr KernelEntry kReferenceOnly[] = {{"*", kReferenceName, LayoutRule::kPlain, MakeReference}};
    return kReferenceOnly;
  }

 private:
  std::map<std::string_view, std::vector<KernelEntry>> by_op_;
};

}  // namespace

std::span<const KernelEntry> KernelsFor(std::string_view op_type) {
  static constexpr Section kSections[] = {kDense, kOneDnn, kElementwise, kMoves, kWindows};
  static const Table table(kSections);
  return table.Find(op_type);
}

}  // namespace crease
