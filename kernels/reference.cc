// SPDX-License-Identifier: Apache-2.0
// Runs an operator by its definition in double precision. It allocates in Run: it is for operators
// without a kernel of their own, so that every defined operator runs.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/kernels.h"

namespace crease {
namespace {

double Activate(const Epilogue& e, double x) {
  switch (e.activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return x < 0 ? 0 : x;
    case Activation::kClip:
      return x < e.a ? e.a : x > e.b ? e.b : x;
    case Activation::kLeakyRelu:
      return x < 0 ? e.a * x : x;
    case Activation::kHardSwish:
      return x * std::min(std::max(x / 6 + 0.5, 0.0), 1.0);
    case Activation::kHardSigmoid:
      return std::min(std::max(e.a * x + e.b, 0.0), 1.0);
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kElu:
      return x < 0 ? e.a * std::expm1(x) : x;
    case Activation::kGelu:
      return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case Activation::kMish:
      return x * std::tanh(std::log1p(std::exp(x)));
  }
  return x;
}

// A tensor over the view's memory, for the time of one call.
Result<Tensor> Borrow(const ConstTensorView& view) {
  Shape shape(view.dims.begin(), view.dims.begin() + view.rank);
  const auto* bytes = static_cast<const std::byte*>(view.data);
  const size_t size = static_cast<size_t>(view.size()) * ByteSize(view.dtype);
  return Tensor::View(view.dtype, std::move(shape), {bytes, size}, nullptr);
}

// As EvalContext wants it: floats as float64.
Result<Tensor> Widened(const Tensor& tensor) {
  if (!IsFloat(tensor.dtype())) return tensor.Aligned();
  CREASE_ASSIGN_OR_RETURN(const Tensor widened, tensor.ConvertedTo(DType::kFloat64));
  return widened.Aligned();
}

class ReferenceKernel final : public Kernel {
 public:
  ReferenceKernel(const OpDef& op, const KernelRequest& request, std::vector<Tensor> constants)
      : op_(op),
        node_(request.node),
        opset_(request.opset),
        epilogue_(request.epilogue),
        constants_(std::move(constants)) {
    // Not needed to run it, and it would keep the file in memory.
    node_.raw = {};
    for (Attribute& attribute : node_.attributes) attribute.raw = {};
    const size_t inputs = request.src.size() - (has_residual() ? 1 : 0);
    for (size_t i = 0; i < inputs; ++i) present_.push_back(request.src[i].present);
  }

  std::string Describe() const override { return "reference"; }

  // Run has no way to fail: where the operator's definition does (an index out of range, no memory),
  // floats become NaN and integers 0.
  void Run(const RunContext&, std::span<const ConstTensorView> src, std::span<const TensorView> dst) const override {
    if (Compute(src, dst).ok()) return;
    for (const TensorView& view : dst) {
      const size_t size = static_cast<size_t>(view.size()) * ByteSize(view.dtype);
      if (view.data != nullptr && size > 0) std::memset(view.data, IsFloat(view.dtype) ? 0xFF : 0, size);
    }
  }

 private:
  bool has_residual() const { return epilogue_.residual != Residual::kNone; }

  Result<void> Compute(std::span<const ConstTensorView> src, std::span<const TensorView> dst) const {
    std::vector<Tensor> inputs(present_.size());
    std::vector<const Tensor*> pointers(present_.size());
    for (size_t i = 0; i < present_.size(); ++i) {
      if (!present_[i]) continue;
      if (constants_[i].defined()) {
        pointers[i] = &constants_[i];
        continue;
      }
      CREASE_ASSIGN_OR_RETURN(const Tensor borrowed, Borrow(src[i]));
      CREASE_ASSIGN_OR_RETURN(inputs[i], Widened(borrowed));
      pointers[i] = &inputs[i];
    }
    const EvalContext context{node_, opset_, pointers, static_cast<int>(node_.outputs.size())};
    CREASE_ASSIGN_OR_RETURN(std::vector<Tensor> results, op_.eval(context));
    for (size_t i = 0; i < dst.size(); ++i) {
      if (dst[i].data == nullptr) continue;
      if (i >= results.size()) return Error{ErrorCode::kInternal, "an output is missing", ""};
      if (i == 0 && !epilogue_.empty()) {
        CREASE_ASSIGN_OR_RETURN(results[0], Finished(results[0], src));
      }
      CREASE_RETURN_IF_ERROR(Store(results[i], dst[i]));
    }
    return {};
  }

  Result<Tensor> Finished(const Tensor& y, std::span<const ConstTensorView> src) const {
    Tensor residual;
    if (has_residual()) {
      CREASE_ASSIGN_OR_RETURN(residual, Borrow(src.back()));
    }
    CREASE_ASSIGN_OR_RETURN(Tensor out, Tensor::Allocate(DType::kFloat64, y.shape()));
    for (int64_t i = 0; i < y.size(); ++i) {
      const double r = has_residual() ? residual.AsDouble(i) : 0;
      const double before = epilogue_.residual == Residual::kBeforeActivation ? r : 0;
      const double after = epilogue_.residual == Residual::kAfterActivation ? r : 0;
      out.mutable_data<double>()[i] = Activate(epilogue_, y.AsDouble(i) + before) + after;
    }
    return out;
  }

  static Result<void> Store(const Tensor& result, const TensorView& dst) {
    CREASE_ASSIGN_OR_RETURN(const Tensor narrowed, result.ConvertedTo(dst.dtype));
    if (narrowed.size() != dst.size()) {
      return Error{ErrorCode::kInternal, "an output has another size than planned", ""};
    }
    if (dst.size() > 0) std::memcpy(dst.data, narrowed.bytes(), narrowed.byte_size());
    return {};
  }

  const OpDef& op_;
  Node node_;
  int opset_;
  Epilogue epilogue_;
  std::vector<bool> present_;
  std::vector<Tensor> constants_;  // by input; undefined where not known
};

}  // namespace

KernelResult MakeReference(const KernelRequest& request) {
  const OpDef* op = FindOp(request.node.domain, request.node.op_type, request.opset);
  if (op == nullptr || op->eval == nullptr) return Refuse("the operator has no definition");
  if (request.prologue.scale != nullptr) return Refuse("prologue");
  std::vector<Tensor> constants;
  for (const Operand& operand : request.src) {
    if (operand.present && operand.layout != Layout::kPlain) return Refuse("channels-last input");
    constants.emplace_back();
    if (operand.constant == nullptr) continue;
    CREASE_ASSIGN_OR_RETURN(constants.back(), Widened(*operand.constant));
  }
  for (const Operand& operand : request.dst) {
    if (operand.present && operand.layout != Layout::kPlain) return Refuse("channels-last output");
  }
  return std::unique_ptr<Kernel>(new ReferenceKernel(*op, request, std::move(constants)));
}

}  // namespace crease
