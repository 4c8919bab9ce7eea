// SPDX-License-Identifier: Apache-2.0
// Operators that only move data, of any dtype of 1 to 8 bytes: each is one or several strided copies.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "graph/ops/common.h"
#include "graph/ops/pad.h"
#include "graph/ops/slice.h"
#include "graph/ops/transpose.h"
#include "kernels/kernels.h"
#include "kernels/strided_copy.h"

namespace crease {
namespace {

using Strides = std::vector<int64_t>;

struct Part {
  size_t src, dst;
  StridedCopy copy;
};

class MoveKernel final : public Kernel {
 public:
  explicit MoveKernel(const KernelRequest& request) : element_size_(ByteSize(request.dst[0].dtype)) {}

  void Add(size_t src, size_t dst, const LoopNest& nest, int64_t dst_offset = 0, int64_t src_offset = 0) {
    parts_.push_back({src, dst, StridedCopy(nest, dst_offset, src_offset, element_size_)});
  }
  // Every element of dst becomes `value` (an element's bytes) before anything is copied.
  void AddFill(const Operand& dst, uint64_t value) {
    fill_value_ = value;
    fill_ = StridedCopy(MakeLoopNest(dst.shape, std::array{StorageStrides(dst), Strides(dst.shape.size(), 0)}), 0, 0,
                        element_size_);
  }

  std::string Describe() const override {
    if (parts_.empty()) return "copy";
    return parts_[0].copy.Describe() + (parts_.size() > 1 ? " x" + std::to_string(parts_.size()) : "");
  }

  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    if (fill_) fill_->Run(context, &fill_value_, dst[0].data);
    for (const Part& part : parts_) {
      if (dst[part.dst].data != nullptr) part.copy.Run(context, src[part.src].data, dst[part.dst].data);
    }
  }

 private:
  size_t element_size_;
  std::vector<Part> parts_;
  uint64_t fill_value_ = 0;
  std::optional<StridedCopy> fill_;
};

// What every mover checks.
std::optional<Error> Check(const KernelRequest& request) {
  if (!request.epilogue.empty()) return Refuse("epilogue");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  if (request.src.empty() || !request.src[0].present) return Refuse("an input is absent");
  if (request.src[0].dtype != request.dst[0].dtype) return Refuse("dtypes differ");
  return std::nullopt;
}

LoopNest NestOf(const Shape& shape, Strides dst, Strides src) {
  return MakeLoopNest(shape, std::array{std::move(dst), std::move(src)});
}

// The value of an optional constant input; an Error if it is there and not constant.
Result<const Tensor*> ConstantInput(const KernelRequest& request, size_t i) {
  if (i >= request.src.size() || !request.src[i].present) return static_cast<const Tensor*>(nullptr);
  if (request.src[i].constant == nullptr) return Refuse("input " + std::to_string(i) + " is not constant");
  return request.src[i].constant;
}

}  // namespace

KernelResult MakeCopy(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Operand& src = request.src[0];
  const Operand& dst = request.dst[0];
  for (size_t i = 1; i < request.dst.size(); ++i) {
    if (request.dst[i].present) return Refuse("a second output");
  }
  auto kernel = std::make_unique<MoveKernel>(request);
  if (src.shape == dst.shape) {
    kernel->Add(0, 0, NestOf(dst.shape, StorageStrides(dst), StorageStrides(src)));
  } else if (dst.layout == Layout::kPlain) {
    kernel->Add(0, 0, NestOf(src.shape, StorageStrides(src.shape, Layout::kPlain, 0), StorageStrides(src)));
  } else if (src.layout == Layout::kPlain) {
    kernel->Add(0, 0, NestOf(dst.shape, StorageStrides(dst), StorageStrides(dst.shape, Layout::kPlain, 0)));
  } else {
    return Refuse("reshape between channels-last tensors");
  }
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakeConcat(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Operand& dst = request.dst[0];
  CREASE_ASSIGN_OR_RETURN(const int axis, ops::ParseAxis(request.node, static_cast<int>(dst.shape.size()), 1));
  auto kernel = std::make_unique<MoveKernel>(request);
  const Strides strides = StorageStrides(dst);
  int64_t offset = 0;
  for (size_t i = 0; i < request.src.size(); ++i) {
    const Operand& src = request.src[i];
    kernel->Add(i, 0, NestOf(src.shape, strides, StorageStrides(src)), offset);
    offset += src.shape[static_cast<size_t>(axis)] * strides[static_cast<size_t>(axis)];
  }
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakeSplit(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Operand& src = request.src[0];
  CREASE_ASSIGN_OR_RETURN(const int axis, ops::ParseAxis(request.node, static_cast<int>(src.shape.size()), 0));
  auto kernel = std::make_unique<MoveKernel>(request);
  const Strides strides = StorageStrides(src);
  int64_t offset = 0;
  for (size_t i = 0; i < request.dst.size(); ++i) {
    const Operand& dst = request.dst[i];
    if (!dst.present && dst.shape.size() != src.shape.size()) return Refuse("an output is absent");
    kernel->Add(0, i, NestOf(dst.shape, StorageStrides(dst), strides), 0, offset);
    offset += dst.shape[static_cast<size_t>(axis)] * strides[static_cast<size_t>(axis)];
  }
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakeSlice(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Tensor* inputs[4];
  for (size_t i = 0; i < 4; ++i) {
    CREASE_ASSIGN_OR_RETURN(inputs[i], ConstantInput(request, i + 1));
  }
  const Operand& src = request.src[0];
  CREASE_ASSIGN_OR_RETURN(const ops::SlicePlan plan, ops::ResolveSlice(request.node, request.opset, src.shape,
                                                                       inputs[0], inputs[1], inputs[2], inputs[3]));
  if (plan.output != request.dst[0].shape) return Refuse("another output shape than planned");
  Strides strides = StorageStrides(src);
  int64_t offset = 0;
  for (size_t i = 0; i < strides.size(); ++i) {
    offset += plan.start[i] * strides[i];
    strides[i] *= plan.step[i];
  }
  auto kernel = std::make_unique<MoveKernel>(request);
  kernel->Add(0, 0, NestOf(plan.output, StorageStrides(request.dst[0]), strides), 0, offset);
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakeTranspose(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Operand& src = request.src[0];
  CREASE_ASSIGN_OR_RETURN(const std::vector<int> perm,
                          ops::ParseTranspose(request.node, static_cast<int>(src.shape.size())));
  const Strides own = StorageStrides(src);
  Strides strides;
  for (const int axis : perm) strides.push_back(own[static_cast<size_t>(axis)]);
  auto kernel = std::make_unique<MoveKernel>(request);
  kernel->Add(0, 0, NestOf(request.dst[0].shape, StorageStrides(request.dst[0]), strides));
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakeExpand(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Operand& dst = request.dst[0];
  if (request.src[0].shape.size() > dst.shape.size()) return Refuse("rank");
  auto kernel = std::make_unique<MoveKernel>(request);
  kernel->Add(0, 0, NestOf(dst.shape, StorageStrides(dst), BroadcastStorageStrides(request.src[0], dst.shape)));
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakeTile(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Operand& src = request.src[0];
  const Operand& dst = request.dst[0];
  if (2 * src.shape.size() > kMaxLoops) return Refuse("rank");
  const Strides from = StorageStrides(src);
  const Strides to = StorageStrides(dst);
  LoopNest nest;
  for (size_t i = 0; i < src.shape.size(); ++i) {
    if (src.shape[i] == 0 || dst.shape[i] % src.shape[i] != 0) return Refuse("shapes do not tile");
    nest.Add(dst.shape[i] / src.shape[i], std::array<int64_t, 2>{to[i] * src.shape[i], 0});
    nest.Add(src.shape[i], std::array<int64_t, 2>{to[i], from[i]});
  }
  auto kernel = std::make_unique<MoveKernel>(request);
  kernel->Add(0, 0, nest);
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakePad(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Tensor* inputs[3];
  for (size_t i = 0; i < 3; ++i) {
    CREASE_ASSIGN_OR_RETURN(inputs[i], ConstantInput(request, i + 1));
  }
  const Operand& src = request.src[0];
  const Operand& dst = request.dst[0];
  CREASE_ASSIGN_OR_RETURN(const ops::PadPlan plan,
                          ops::ResolvePad(request.node, request.opset, src.shape, inputs[0], inputs[1], inputs[2]));
  if (plan.mode != ops::PadMode::kConstant) return Refuse("pads with something else than a constant");
  if (plan.output != dst.shape) return Refuse("another output shape than planned");
  uint64_t value = 0;
  if (dst.dtype == DType::kFloat32) {
    const auto narrowed = static_cast<float>(plan.value);
    std::memcpy(&value, &narrowed, sizeof(narrowed));
  } else if (plan.value != 0) {
    return Refuse("pads other than float32 with a value");
  }
  const Strides from = StorageStrides(src);
  const Strides to = StorageStrides(dst);
  Shape kept;
  int64_t src_offset = 0, dst_offset = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    const int64_t cut = std::max<int64_t>(0, -plan.begin[i]);
    const int64_t first = std::max<int64_t>(0, plan.begin[i]);
    kept.push_back(std::max<int64_t>(0, std::min(src.shape[i] - cut, dst.shape[i] - first)));
    src_offset += cut * from[i];
    dst_offset += first * to[i];
  }
  auto kernel = std::make_unique<MoveKernel>(request);
  if (kept != dst.shape) kernel->AddFill(dst, value);
  kernel->Add(0, 0, NestOf(kept, to, from), dst_offset, src_offset);
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakeChannelShuffle(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const Operand& src = request.src[0];
  CREASE_ASSIGN_OR_RETURN(const int64_t groups, AttrInt(request.node, "groups", 1));
  if (src.shape.size() < 2 || groups < 1 || src.shape[1] % groups != 0) return Refuse("groups");
  const Strides from = StorageStrides(src);
  const Strides to = StorageStrides(request.dst[0]);
  const int64_t width = src.shape[1] / groups;
  LoopNest nest;
  nest.Add(src.shape[0], std::array{to[0], from[0]});
  nest.Add(width, std::array{to[1] * groups, from[1]});
  nest.Add(groups, std::array{to[1], from[1] * width});
  for (size_t i = 2; i < from.size(); ++i) nest.Add(src.shape[i], std::array{to[i], from[i]});
  auto kernel = std::make_unique<MoveKernel>(request);
  kernel->Add(0, 0, nest);
  return std::unique_ptr<Kernel>(std::move(kernel));
}

// DepthToSpace and SpaceToDepth: both are one permutation of (n, c, bh, bw, h, w).
KernelResult MakeDepthSpace(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  const bool to_space = request.node.op_type == "DepthToSpace";
  CREASE_ASSIGN_OR_RETURN(const int64_t block, AttrInt(request.node, "blocksize", 0));
  CREASE_ASSIGN_OR_RETURN(const std::string mode, AttrString(request.node, "mode", "DCR"));
  const Operand& deep = to_space ? request.src[0] : request.dst[0];
  const Operand& wide = to_space ? request.dst[0] : request.src[0];
  if (deep.shape.size() != 4 || block < 1 || deep.shape[1] != wide.shape[1] * block * block)
    return Refuse("block size");
  const Strides d = StorageStrides(deep);
  const Strides w = StorageStrides(wide);
  const int64_t channels = wide.shape[1];
  const bool column_row = mode == "CRD";
  LoopNest nest;
  const auto add = [&](int64_t n, int64_t deep_step, int64_t wide_step) {
    nest.Add(n, to_space ? std::array{wide_step, deep_step} : std::array{deep_step, wide_step});
  };
  add(deep.shape[0], d[0], w[0]);
  add(channels, d[1] * (column_row ? block * block : 1), w[1]);
  add(deep.shape[2], d[2], w[2] * block);
  add(block, d[1] * (column_row ? block : block * channels), w[2]);
  add(deep.shape[3], d[3], w[3] * block);
  add(block, d[1] * (column_row ? 1 : channels), w[3]);
  auto kernel = std::make_unique<MoveKernel>(request);
  kernel->Add(0, 0, nest);
  return std::unique_ptr<Kernel>(std::move(kernel));
}

KernelResult MakeGather(const KernelRequest& request) {
  if (auto error = Check(request)) return *error;
  if (request.src.size() < 2 || request.src[1].constant == nullptr) return Refuse("indices are not constant");
  const Operand& src = request.src[0];
  const Tensor& indices = *request.src[1].constant;
  CREASE_ASSIGN_OR_RETURN(const int axis_int, ops::ParseAxis(request.node, static_cast<int>(src.shape.size()), 0));
  const auto axis = static_cast<size_t>(axis_int);
  if (indices.size() > 4096) return Refuse("many indices");
  const Strides from = StorageStrides(src);
  // Seen as (outer..., index, inner...), the destination is dense.
  Shape shape = src.shape;
  shape[axis] = indices.size();
  const Strides to = StorageStrides(shape, Layout::kPlain, 0);
  shape[axis] = 1;
  auto kernel = std::make_unique<MoveKernel>(request);
  for (int64_t i = 0; i < indices.size(); ++i) {
    int64_t index = indices.AsInt64(i);
    if (index < 0) index += src.shape[axis];
    if (index < 0 || index >= src.shape[axis]) return Refuse("an index is out of range");
    kernel->Add(0, 0, NestOf(shape, to, from), i * to[axis], index * from[axis]);
  }
  return std::unique_ptr<Kernel>(std::move(kernel));
}

}  // namespace crease
