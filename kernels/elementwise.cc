// SPDX-License-Identifier: Apache-2.0
// Element-wise operators of one or two f32 inputs with broadcasting, in any layout, with an epilogue.
#include <algorithm>
#include <optional>
#include <utility>

#include "graph/ops/activation.h"
#include "kernels/elementwise_rows.h"
#include "kernels/kernels.h"
#include "kernels/loop_nest.h"
#include "kernels/rounding.h"

namespace crease {
namespace {

// Elements of one step, of one row or several: small enough that what passes from operator to epilogue
// stays in L1.
constexpr int64_t kBlock = 1024;

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
    {"Relu", Activation::kRelu},           {"LeakyRelu", Activation::kLeakyRelu},
    {"HardSwish", Activation::kHardSwish}, {"HardSigmoid", Activation::kHardSigmoid},
    {"Sigmoid", Activation::kSigmoid},     {"Silu", Activation::kSilu},
    {"Tanh", Activation::kTanh},           {"Elu", Activation::kElu},
    {"Gelu", Activation::kGelu},           {"Mish", Activation::kMish},
};

Result<Meaning> MeaningOfClip(const KernelRequest& request) {
  const Tensor* bounds[2] = {nullptr, nullptr};
  const size_t inputs = request.src.size() - (request.epilogue.residual != Residual::kNone ? 1 : 0);
  for (size_t i = 1; i <= 2 && i < inputs; ++i) {
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
  ElementRows op = nullptr;       // null: the source goes straight to the epilogue
  EpilogueRows finish = nullptr;  // null: no epilogue
  Epilogue epilogue;
  int inputs = 1;
  std::string description;

  // A step is `rows` of the second loop times `columns` of the innermost one.
  int skip = 1;  // loops inside a step: 1, or 2 if there is a second loop
  int64_t rows = 1, columns = 1;
  int64_t row_steps = 1, column_steps = 1;

  int64_t row_count() const { return skip == 2 ? nest.count[static_cast<size_t>(nest.loops - 2)] : 1; }
  int64_t row_stride(int operand) const {
    return skip == 2 ? nest.stride[static_cast<size_t>(operand)][static_cast<size_t>(nest.loops - 2)] : 0;
  }
  void MakeSteps() {
    skip = nest.loops >= 2 ? 2 : 1;
    columns = std::max<int64_t>(1, std::min(kBlock, nest.inner()));
    rows = std::max<int64_t>(1, std::min(kBlock / columns, row_count()));
    column_steps = DivideUp(nest.inner(), columns);
    row_steps = DivideUp(row_count(), rows);
  }
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
    const int64_t outer = total / plan_.nest.inner() / plan_.row_count();
    ParallelForCost(context, outer * plan_.row_steps * plan_.column_steps, total,
                    [&](int64_t begin, int64_t end) { RunSteps(p, begin, end); });
  }

 private:
  struct Pointers {
    float* dst;
    const float* src[3];
  };
  struct Step {
    int64_t row, column, rows, columns;  // first ones and how many
  };

  void RunSteps(const Pointers& p, int64_t begin, int64_t end) const {
    const int64_t inside = plan_.row_steps * plan_.column_steps;
    LoopWalker walker(plan_.nest, plan_.skip, begin / inside);
    int64_t at = begin % inside;
    for (int64_t i = begin; i < end; ++i) {
      Step step{};
      step.row = at / plan_.column_steps * plan_.rows;
      step.column = at % plan_.column_steps * plan_.columns;
      step.rows = std::min(plan_.rows, plan_.row_count() - step.row);
      step.columns = std::min(plan_.columns, plan_.nest.inner() - step.column);
      RunStep(p, walker, step);
      if (++at == inside) {
        at = 0;
        walker.Next();
      }
    }
  }

  int64_t Offset(const LoopWalker& walker, const Step& step, int operand) const {
    return walker.offset(operand) + step.row * plan_.row_stride(operand) +
           step.column * plan_.nest.inner_stride(operand);
  }

  // Operand `k`'s elements of a step, gathered into `buffer` where they are not adjacent.
  RowsOf Fetch(const Pointers& p, const LoopWalker& walker, const Step& step, int k, float* buffer) const {
    const int64_t stride = plan_.nest.inner_stride(k);
    const float* src = p.src[k - 1] + Offset(walker, step, k);
    if (stride == 0 || stride == 1) return {src, stride, plan_.row_stride(k)};
    for (int64_t r = 0; r < step.rows; ++r) {
      for (int64_t i = 0; i < step.columns; ++i) {
        buffer[r * step.columns + i] = src[r * plan_.row_stride(k) + i * stride];
      }
    }
    return {buffer, 1, step.columns};
  }

  void RunStep(const Pointers& p, const LoopWalker& walker, const Step& step) const {
    alignas(64) float buffers[3][kBlock];
    alignas(64) float result[kBlock];
    const int64_t stride = plan_.nest.inner_stride(0);
    float* dst = p.dst + Offset(walker, step, 0);
    float* out = stride == 1 ? dst : result;
    const int64_t out_pitch = stride == 1 ? plan_.row_stride(0) : step.columns;
    RowsOf y = Fetch(p, walker, step, 1, buffers[0]);
    if (plan_.op != nullptr) {
      const RowsOf b = plan_.inputs == 2 ? Fetch(p, walker, step, 2, buffers[1]) : y;
      float* to = plan_.finish != nullptr ? result : out;
      const int64_t to_pitch = plan_.finish != nullptr ? step.columns : out_pitch;
      plan_.op(y, b, to, to_pitch, step.columns, step.rows);
      y = {to, 1, to_pitch};
    }
    if (plan_.finish != nullptr) {
      RowsOf residual;
      if (plan_.epilogue.residual != Residual::kNone) {
        residual = Fetch(p, walker, step, plan_.inputs + 1, buffers[2]);
      }
      plan_.finish(y, residual, out, out_pitch, step.columns, step.rows, plan_.epilogue.a, plan_.epilogue.b);
    }
    if (stride == 1) return;
    for (int64_t r = 0; r < step.rows; ++r) {
      for (int64_t i = 0; i < step.columns; ++i) {
        dst[r * plan_.row_stride(0) + i * stride] = out[r * step.columns + i];
      }
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
  plan.MakeSteps();
  // A broadcast source or residual is spread by an operator first; an epilogue wants whole rows.
  const bool spread = plan.nest.inner_stride(1) == 0;
  if (meaning.op != ElementOp::kIdentity || plan.epilogue.empty() || spread) plan.op = FindElementRows(meaning.op);
  if (!plan.epilogue.empty()) plan.finish = FindEpilogueRows(plan.epilogue.activation, plan.epilogue.residual);
  if (has_residual && plan.nest.inner_stride(plan.inputs + 1) == 0) return Refuse("broadcast residual");
  plan.description = "elementwise loops " + std::to_string(plan.nest.loops);
  return std::unique_ptr<Kernel>(new ElementwiseKernel(std::move(plan), std::move(constants)));
}

}  // namespace crease
