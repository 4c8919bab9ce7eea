// SPDX-License-Identifier: Apache-2.0
// Element-wise operators of one or two f32 inputs with broadcasting, in any layout, with an epilogue.
#include <algorithm>
#include <optional>
#include <utility>

#include "graph/ops/activation.h"
#include "kernels/elementwise_rows.h"
#include "kernels/kernels.h"
#include "kernels/loop_nest.h"

namespace crease {
namespace {

// One step of a row: small enough that what passes from operator to epilogue stays in L1.
constexpr int64_t kBlock = 512;

// What an operator is made of. `op` is kIdentity for pure activations.
struct Meaning {
  ElementOp op = ElementOp::kIdentity;
  Activation activation = Activation::kNone;
  float a = 0, b = 0;
};

struct NamedOp {
  std::string_view name;
  ElementOp op;
};
constexpr NamedOp kOps[] = {
    {"Identity", ElementOp::kIdentity}, {"Dropout", ElementOp::kIdentity}, {"Abs", ElementOp::kAbs},
    {"Neg", ElementOp::kNeg},           {"Sqrt", ElementOp::kSqrt},        {"Reciprocal", ElementOp::kReciprocal},
    {"Exp", ElementOp::kExp},           {"Erf", ElementOp::kErf},          {"Floor", ElementOp::kFloor},
    {"Ceil", ElementOp::kCeil},         {"Round", ElementOp::kRound},      {"Softplus", ElementOp::kSoftplus},
    {"Log", ElementOp::kLog},           {"Add", ElementOp::kAdd},          {"Sum", ElementOp::kAdd},
    {"Sub", ElementOp::kSub},           {"Mul", ElementOp::kMul},          {"Div", ElementOp::kDiv},
    {"Max", ElementOp::kMax},           {"Min", ElementOp::kMin},          {"Pow", ElementOp::kPow},
    {"PRelu", ElementOp::kPRelu},
};

struct NamedActivation {
  std::string_view name;
  Activation activation;
};
constexpr NamedActivation kActivations[] = {
    {"Relu", Activation::kRelu},           {"LeakyRelu", Activation::kLeakyRelu}, {"HardSwish", Activation::kHardSwish},
    {"HardSigmoid", Activation::kHardSigmoid}, {"Sigmoid", Activation::kSigmoid}, {"Silu", Activation::kSilu},
    {"Tanh", Activation::kTanh},           {"Elu", Activation::kElu},             {"Gelu", Activation::kGelu},
    {"Mish", Activation::kMish},
};

Result<Meaning> MeaningOfClip(const KernelRequest& request) {
  const Tensor* bounds[2] = {nullptr, nullptr};
  for (size_t i = 1; i <= 2 && i < request.src.size() && i < request.node.inputs.size(); ++i) {
    if (!request.src[i].present) continue;
    bounds[i - 1] = request.src[i].constant;
    if (bounds[i - 1] == nullptr) return Refuse("bounds are not constant");
  }
  CREASE_ASSIGN_OR_RETURN(const ops::ClipBounds clip,
                          ops::ParseClip(request.node, request.opset, bounds[0], bounds[1]));
  return Meaning{ElementOp::kIdentity, Activation::kClip, static_cast<float>(clip.low), static_cast<float>(clip.high)};
}

Result<Meaning> MeaningOf(const KernelRequest& request) {
  const Node& node = request.node;
  if (node.op_type == "Clip") return MeaningOfClip(request);
  for (const NamedActivation& named : kActivations) {
    if (named.name != node.op_type) continue;
    CREASE_ASSIGN_OR_RETURN(const ops::ActivationParameters p, ops::ParseActivation(node));
    if (named.activation == Activation::kGelu && p.alpha != 0) return Refuse("approximate GELU");
    return Meaning{ElementOp::kIdentity, named.activation, static_cast<float>(p.alpha), static_cast<float>(p.beta)};
  }
  for (const NamedOp& named : kOps) {
    if (named.name == node.op_type) return Meaning{named.op};
  }
  return Refuse("not an element-wise operator");
}

// x^2, sqrt(x) and x instead of pow(x, y).
void SimplifyPow(const Operand& exponent, Meaning* meaning) {
  if (meaning->op != ElementOp::kPow || exponent.constant == nullptr || exponent.constant->size() != 1) return;
  const double y = exponent.constant->AsDouble(0);
  if (y == 1) meaning->op = ElementOp::kIdentity;
  if (y == 2) meaning->op = ElementOp::kSquare;
  if (y == 0.5) meaning->op = ElementOp::kSqrt;
}

// Operands of a run: 0 is dst, then the inputs, then the residual.
struct Plan {
  LoopNest nest;
  ElementRow row = nullptr;       // null: the source goes straight to the epilogue
  EpilogueRow finish = nullptr;   // null: no epilogue
  Epilogue epilogue;
  int inputs = 1;
  int64_t blocks = 1;             // steps of one innermost loop
  std::string description;
};

class ElementwiseKernel final : public Kernel {
 public:
  ElementwiseKernel(Plan plan, std::vector<Tensor> constants)
      : plan_(std::move(plan)), constants_(std::move(constants)) {}

  std::string Describe() const override { return plan_.description; }

  void Run(const RunContext& context, std::span<const ConstTensorView> src,
           std::span<const TensorView> dst) const override {
    Pointers p{};
    p.dst = static_cast<float*>(dst[0].data);
    for (size_t i = 0; i < static_cast<size_t>(plan_.inputs); ++i) {
      p.src[i] = constants_[i].defined() ? constants_[i].data<float>() : static_cast<const float*>(src[i].data);
    }
    if (plan_.epilogue.residual != Residual::kNone) {
      p.src[static_cast<size_t>(plan_.inputs)] = static_cast<const float*>(src.back().data);
    }
    const int64_t total = plan_.nest.total();
    if (total == 0) return;
    ParallelForCost(context, plan_.nest.outer_total() * plan_.blocks, total,
                    [&](int64_t begin, int64_t end) { RunBlocks(p, begin, end); });
  }

 private:
  struct Pointers {
    float* dst;
    const float* src[3];
  };

  void RunBlocks(const Pointers& p, int64_t begin, int64_t end) const {
    const LoopNest& nest = plan_.nest;
    LoopWalker walker(nest, 1, begin / plan_.blocks);
    int64_t block = begin % plan_.blocks;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = block * kBlock;
      RunBlock(p, walker, first, std::min(kBlock, nest.inner() - first));
      if (++block == plan_.blocks) {
        block = 0;
        walker.Next();
      }
    }
  }

  // Operand `k`'s elements of a block, gathered into `buffer` where they are not adjacent; *step is 0
  // where they are all the same.
  const float* Fetch(const Pointers& p, const LoopWalker& walker, int k, int64_t first, int64_t n, float* buffer,
                     int64_t* step) const {
    const int64_t stride = plan_.nest.inner_stride(k);
    const float* src = p.src[k - 1] + walker.offset(k) + first * stride;
    *step = stride == 0 ? 0 : 1;
    if (stride == 0 || stride == 1) return src;
    for (int64_t i = 0; i < n; ++i) buffer[i] = src[i * stride];
    return buffer;
  }

  void RunBlock(const Pointers& p, const LoopWalker& walker, int64_t first, int64_t n) const {
    alignas(64) float buffers[3][kBlock];
    alignas(64) float result[kBlock];
    const int64_t stride = plan_.nest.inner_stride(0);
    float* dst = p.dst + walker.offset(0) + first * stride;
    float* out = stride == 1 ? dst : result;
    int64_t step[2] = {1, 1};
    const float* a = Fetch(p, walker, 1, first, n, buffers[0], &step[0]);
    const float* b = plan_.inputs == 2 ? Fetch(p, walker, 2, first, n, buffers[1], &step[1]) : a;
    const float* y = a;
    if (plan_.row != nullptr || step[0] == 0) {
      float* to = plan_.finish != nullptr ? result : out;
      if (plan_.row != nullptr) {
        plan_.row(a, step[0], b, step[1], to, n);
      } else {
        std::fill_n(to, n, *a);
      }
      y = to;
    }
    if (plan_.finish != nullptr) {
      int64_t residual_step = 1;
      const float* residual = nullptr;
      if (plan_.epilogue.residual != Residual::kNone) {
        residual = Fetch(p, walker, plan_.inputs + 1, first, n, buffers[2], &residual_step);
      }
      plan_.finish(y, residual, out, n, plan_.epilogue.a, plan_.epilogue.b);
    }
    if (stride != 1) {
      for (int64_t i = 0; i < n; ++i) dst[i * stride] = out[i];
    }
  }

  Plan plan_;
  std::vector<Tensor> constants_;  // by input; undefined where it comes with the run
};

std::optional<Error> CheckTypes(const KernelRequest& request, size_t inputs) {
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  if (request.dst[0].dtype != DType::kFloat32) return Refuse("not float32");
  for (size_t i = 1; i < request.dst.size(); ++i) {
    if (request.dst[i].present) return Refuse("a second output");
  }
  for (size_t i = 0; i < inputs; ++i) {
    if (!request.src[i].present) return Refuse("an input is absent");
    if (request.src[i].dtype != DType::kFloat32) return Refuse("not float32");
  }
  return std::nullopt;
}

}  // namespace

KernelResult MakeElementwise(const KernelRequest& request) {
  CREASE_ASSIGN_OR_RETURN(Meaning meaning, MeaningOf(request));
  Plan plan;
  plan.epilogue = request.epilogue;
  const bool has_residual = request.epilogue.residual != Residual::kNone;
  const size_t operands = request.src.size() - (has_residual ? 1 : 0);
  if (IsBinary(meaning.op)) {
    if (operands != 2) return Refuse("not two inputs");
    SimplifyPow(request.src[1], &meaning);
  }
  plan.inputs = IsBinary(meaning.op) ? 2 : 1;
  if (auto error = CheckTypes(request, static_cast<size_t>(plan.inputs))) return *error;
  if (meaning.activation != Activation::kNone) {
    if (plan.epilogue.activation != Activation::kNone) return Refuse("two activations");
    if (plan.epilogue.residual == Residual::kBeforeActivation) {
      plan.epilogue.residual = Residual::kAfterActivation;  // act(x) + r, then nothing
    }
    plan.epilogue.activation = meaning.activation;
    plan.epilogue.a = meaning.a;
    plan.epilogue.b = meaning.b;
  }
  const Operand& dst = request.dst[0];
  std::vector<std::vector<int64_t>> strides = {StorageStrides(dst)};
  std::vector<Tensor> constants;
  for (size_t i = 0; i < static_cast<size_t>(plan.inputs); ++i) {
    strides.push_back(BroadcastStorageStrides(request.src[i], dst.shape));
    constants.emplace_back();
    if (request.src[i].constant == nullptr) continue;
    CREASE_ASSIGN_OR_RETURN(constants.back(), request.src[i].constant->Aligned());
  }
  if (has_residual) strides.push_back(BroadcastStorageStrides(request.src.back(), dst.shape));
  plan.nest = MakeLoopNest(dst.shape, strides);
  plan.blocks = std::max<int64_t>(1, (plan.nest.inner() + kBlock - 1) / kBlock);
  if (meaning.op != ElementOp::kIdentity || plan.epilogue.empty()) plan.row = FindElementRow(meaning.op);
  if (!plan.epilogue.empty()) plan.finish = FindEpilogueRow(plan.epilogue.activation, plan.epilogue.residual);
  plan.description = "elementwise loops " + std::to_string(plan.nest.loops);
  return std::unique_ptr<Kernel>(new ElementwiseKernel(std::move(plan), std::move(constants)));
}

}  // namespace crease
