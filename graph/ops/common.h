// SPDX-License-Identifier: Apache-2.0
// What operator definitions share: messages, axes, broadcasting, checked arithmetic.
#pragma once

#include <concepts>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/op.h"
#include "graph/status.h"

namespace crease::ops {

inline void AppendPart(std::string& text, std::string_view part) { text += part; }
inline void AppendPart(std::string& text, double part) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%g", part);
  text += buffer;
}
inline void AppendPart(std::string& text, std::integral auto part) { text += std::to_string(part); }

template <typename... Parts>
std::string StrCat(const Parts&... parts) {
  std::string text;
  (AppendPart(text, parts), ...);
  return text;
}

// Errors without a place: the caller of a rule adds the node's name.
template <typename... Parts>
Error InvalidModel(const Parts&... parts) {
  return Error{ErrorCode::kInvalidModel, StrCat(parts...), ""};
}
template <typename... Parts>
Error Unsupported(const Parts&... parts) {
  return Error{ErrorCode::kUnsupported, StrCat(parts...), ""};
}

// False where the exact result does not fit int64.
inline bool CheckedMul(int64_t a, int64_t b, int64_t* result) { return !__builtin_mul_overflow(a, b, result); }
inline bool CheckedAdd(int64_t a, int64_t b, int64_t* result) { return !__builtin_add_overflow(a, b, result); }

// Quotient rounded up; a >= 0, b > 0.
constexpr int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0); }

// An axis in [0, rank), from one in [-rank, rank).
Result<int> NormalizeAxis(int64_t axis, int rank);
// Likewise for several; twice the same axis is an error. The order is kept.
Result<std::vector<int>> NormalizeAxes(std::span<const int64_t> axes, int rank);

// The attribute `axis`, normalized.
Result<int> ParseAxis(const Node& node, int rank, int64_t fallback);

// All elements as int64. Errors: not int32 or int64, rank over 1.
Result<std::vector<int64_t>> IntVector(const Tensor& tensor, std::string_view what);
// The one element of a scalar or one-element tensor.
Result<int64_t> IntScalar(const Tensor& tensor, std::string_view what);

// NumPy's multidirectional broadcasting; symbols survive where the dimension does.
Result<std::vector<Dim>> BroadcastDims(std::span<const std::vector<Dim>* const> operands);
Result<Shape> BroadcastShapes(std::span<const Shape> operands);

// Elements from one index to the next, for a dense row-major shape.
std::vector<int64_t> RowMajorStrides(std::span<const int64_t> shape);
// The same as `operand` sees it inside `result`: 0 where it is broadcast.
std::vector<int64_t> BroadcastStrides(std::span<const int64_t> operand, std::span<const int64_t> result);

// Product of shape[begin, end); the shape's own ElementCount must have succeeded.
int64_t Product(std::span<const int64_t> shape, size_t begin, size_t end);

// Dimensions of a shape without symbols.
std::vector<Dim> DimsOf(std::span<const int64_t> shape);

// Checks of inputs as far as they are known; an absent input passes.
Result<void> RequireFloat(const InferContext& context, int input);
Result<void> RequireNumber(const InferContext& context, int input);  // a float or an integer
Result<void> RequireDType(const InferContext& context, int input, DType dtype);
Result<void> RequireIndex(const InferContext& context, int input);  // int32 or int64
Result<void> RequireSameDType(const InferContext& context, int first, int second);
Result<void> RequireRank(const InferContext& context, int input, int min_rank, int max_rank = kMaxRank);

// The type of an output that has the dimensions of `type` and may have another dtype.
TensorType WithDType(const TensorType& type, DType dtype);
TensorType TypeOf(DType dtype, std::vector<Dim> dims);
// Sets output i if the node has it.
void SetOutput(InferContext& context, int i, TensorType type);

// What of an input's value the node does not look at: CastLike takes the second's type alone, Shape and Size
// look at no element.
bool ReadsTypeAlone(const Node& node, size_t input);
bool ReadsElements(const Node& node, size_t input);

// Two dimensions that the operator needs to be equal: the one that says more. Errors: they differ.
Result<Dim> MergeDims(const Dim& a, const Dim& b, std::string_view what);

}  // namespace crease::ops
