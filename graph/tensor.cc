// SPDX-License-Identifier: Apache-2.0
#include "graph/tensor.h"

#include <bit>
#include <cmath>

#include "graph/memory_block.h"

namespace crease {
namespace {

template <typename T>
T LoadAs(const std::byte* data, int64_t i) {
  T value;
  std::memcpy(&value, data + static_cast<size_t>(i) * sizeof(T), sizeof(T));
  return value;
}

// Calls f with an element of the C++ type that stores the dtype; half types arrive as float.
template <typename F>
auto VisitElement(DType dtype, const std::byte* data, int64_t i, F f) {
  switch (dtype) {
    case DType::kFloat64:
      return f(LoadAs<double>(data, i));
    case DType::kFloat16:
      return f(HalfToFloat(LoadAs<uint16_t>(data, i)));
    case DType::kBFloat16:
      return f(BFloat16ToFloat(LoadAs<uint16_t>(data, i)));
    case DType::kInt8:
      return f(LoadAs<int8_t>(data, i));
    case DType::kUint8:
    case DType::kBool:
      return f(LoadAs<uint8_t>(data, i));
    case DType::kInt16:
      return f(LoadAs<int16_t>(data, i));
    case DType::kUint16:
      return f(LoadAs<uint16_t>(data, i));
    case DType::kInt32:
      return f(LoadAs<int32_t>(data, i));
    case DType::kUint32:
      return f(LoadAs<uint32_t>(data, i));
    case DType::kInt64:
      return f(LoadAs<int64_t>(data, i));
    case DType::kUint64:
      return f(LoadAs<uint64_t>(data, i));
    case DType::kFloat32:
    case DType::kUndefined:
      break;
  }
  return f(LoadAs<float>(data, i));
}

// Saturates out-of-range values; NaN becomes 0.
template <typename To, typename From>
To ConvertElement(From value) {
  if constexpr (std::is_floating_point_v<To>) {
    return static_cast<To>(value);
  } else if constexpr (std::is_floating_point_v<From>) {
    if (std::isnan(value)) return 0;
    constexpr double kLow = static_cast<double>(std::numeric_limits<To>::min());
    constexpr double kHigh = static_cast<double>(std::numeric_limits<To>::max());
    const double truncated = std::trunc(static_cast<double>(value));
    if (truncated <= kLow) return std::numeric_limits<To>::min();
    if (truncated >= kHigh) return std::numeric_limits<To>::max();
    return static_cast<To>(truncated);
  } else {
    return static_cast<To>(value);
  }
}

template <typename To>
void ConvertAll(const Tensor& src, To* dst) {
  for (int64_t i = 0; i < src.size(); ++i) {
    dst[i] = VisitElement(src.dtype(), src.bytes(), i, [](auto value) { return ConvertElement<To>(value); });
  }
}

}  // namespace

size_t ByteSize(DType dtype) {
  switch (dtype) {
    case DType::kUndefined:
      return 0;
    case DType::kInt8:
    case DType::kUint8:
    case DType::kBool:
      return 1;
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kInt16:
    case DType::kUint16:
      return 2;
    case DType::kFloat32:
    case DType::kInt32:
    case DType::kUint32:
      return 4;
    case DType::kFloat64:
    case DType::kInt64:
    case DType::kUint64:
      return 8;
  }
  return 0;
}

const char* Name(DType dtype) {
  static constexpr const char* kNames[] = {"undefined", "float32", "float64", "float16", "bfloat16", "int8",   "uint8",
                                           "int16",     "uint16",  "int32",   "uint32",  "int64",    "uint64", "bool"};
  return kNames[static_cast<size_t>(dtype)];
}

bool IsFloat(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kFloat16 || dtype == DType::kBFloat16;
}

bool IsInteger(DType dtype) { return dtype != DType::kUndefined && dtype != DType::kBool && !IsFloat(dtype); }

Result<int64_t> ElementCount(std::span<const int64_t> shape) {
  int64_t count = 1;
  bool empty = false, overflow = false;
  for (int64_t dim : shape) {
    if (dim < 0) {
      return Error{ErrorCode::kInvalidModel, "shape " + ToString(shape) + " has a negative dimension", ""};
    }
    empty = empty || dim == 0;
    if (__builtin_mul_overflow(count, dim == 0 ? 1 : dim, &count)) {
      overflow = true;
      count = 1;
    }
  }
  if (empty) return int64_t{0};
  if (overflow) {
    return Error{ErrorCode::kLimitExceeded, "shape " + ToString(shape) + " has more than 2^63 elements", ""};
  }
  return count;
}

std::string ToString(std::span<const int64_t> shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + ")";
}

Result<Tensor> Tensor::Allocate(DType dtype, Shape shape) {
  CREASE_ASSIGN_OR_RETURN(const int64_t count, ElementCount(shape));
  size_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<size_t>(count), ByteSize(dtype), &bytes) ||
      bytes > static_cast<size_t>(std::numeric_limits<int64_t>::max())) {
    return Error{ErrorCode::kLimitExceeded, "a tensor of shape " + ToString(shape) + " is too large", ""};
  }
  std::shared_ptr<std::byte> buffer = AllocateBlock(bytes);
  if (buffer == nullptr) {
    return Error{ErrorCode::kOutOfMemory,
                 "no memory for a tensor of shape " + ToString(shape) + " (" + std::to_string(bytes) + " bytes)", ""};
  }
  std::memset(buffer.get(), 0, bytes);
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.mutable_ = true;
  tensor.shape_ = std::move(shape);
  tensor.size_ = count;
  tensor.data_ = buffer.get();
  tensor.owner_ = std::move(buffer);
  return tensor;
}

Result<Tensor> Tensor::View(DType dtype, Shape shape, std::span<const std::byte> bytes,
                            std::shared_ptr<const void> owner) {
  CREASE_ASSIGN_OR_RETURN(const int64_t count, ElementCount(shape));
  const size_t element = ByteSize(dtype);
  if (element == 0 || bytes.size() % element != 0 || bytes.size() / element != static_cast<size_t>(count)) {
    return Error{ErrorCode::kInvalidModel,
                 "shape " + ToString(shape) + " of " + Name(dtype) + " needs " + std::to_string(count) +
                     " elements, the data has " + std::to_string(bytes.size()) + " bytes",
                 ""};
  }
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = std::move(shape);
  tensor.size_ = count;
  tensor.data_ = bytes.data();
  tensor.owner_ = std::move(owner);
  return tensor;
}

Result<Tensor> Tensor::Aligned() const {
  if (reinterpret_cast<uintptr_t>(data_) % ByteSize(dtype_) == 0) return *this;
  CREASE_ASSIGN_OR_RETURN(Tensor copy, Allocate(dtype_, shape_));
  std::memcpy(const_cast<std::byte*>(copy.data_), data_, byte_size());
  return copy;
}

double Tensor::AsDouble(int64_t i) const {
  return VisitElement(dtype_, data_, i, [](auto value) { return static_cast<double>(value); });
}

int64_t Tensor::AsInt64(int64_t i) const {
  return VisitElement(dtype_, data_, i, [](auto value) { return ConvertElement<int64_t>(value); });
}

Tensor Tensor::Reshaped(Shape shape) const {
  Tensor result = *this;
  assert(ElementCount(shape).ok() && *ElementCount(shape) == size_);
  result.shape_ = std::move(shape);
  result.mutable_ = false;
  return result;
}

Result<Tensor> Tensor::ConvertedTo(DType dtype) const {
  if (dtype == dtype_) return *this;
  CREASE_ASSIGN_OR_RETURN(Tensor result, Allocate(dtype, shape_));
  auto* dst = const_cast<std::byte*>(result.data_);
  switch (dtype) {
    case DType::kFloat32:
      ConvertAll(*this, reinterpret_cast<float*>(dst));
      break;
    case DType::kFloat64:
      ConvertAll(*this, reinterpret_cast<double*>(dst));
      break;
    case DType::kFloat16:
      for (int64_t i = 0; i < size_; ++i) {
        reinterpret_cast<uint16_t*>(dst)[i] = FloatToHalf(static_cast<float>(AsDouble(i)));
      }
      break;
    case DType::kBFloat16:
      for (int64_t i = 0; i < size_; ++i) {
        reinterpret_cast<uint16_t*>(dst)[i] = FloatToBFloat16(static_cast<float>(AsDouble(i)));
      }
      break;
    case DType::kBool:
      for (int64_t i = 0; i < size_; ++i) {
        dst[i] = VisitElement(dtype_, data_, i, [](auto value) { return value != 0 ? std::byte{1} : std::byte{0}; });
      }
      break;
    case DType::kInt8:
      ConvertAll(*this, reinterpret_cast<int8_t*>(dst));
      break;
    case DType::kUint8:
      ConvertAll(*this, reinterpret_cast<uint8_t*>(dst));
      break;
    case DType::kInt16:
      ConvertAll(*this, reinterpret_cast<int16_t*>(dst));
      break;
    case DType::kUint16:
      ConvertAll(*this, reinterpret_cast<uint16_t*>(dst));
      break;
    case DType::kInt32:
      ConvertAll(*this, reinterpret_cast<int32_t*>(dst));
      break;
    case DType::kUint32:
      ConvertAll(*this, reinterpret_cast<uint32_t*>(dst));
      break;
    case DType::kInt64:
      ConvertAll(*this, reinterpret_cast<int64_t*>(dst));
      break;
    case DType::kUint64:
      ConvertAll(*this, reinterpret_cast<uint64_t*>(dst));
      break;
    case DType::kUndefined:
      return Error{ErrorCode::kInternal, "conversion to an undefined dtype", ""};
  }
  return result;
}

float HalfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1Fu;
  const uint32_t mantissa = bits & 0x3FFu;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude < 0x38800000u) {  // denormal half: a multiple of 2^-24, rounded by the FPU
    const float scaled = std::ldexp(std::bit_cast<float>(magnitude), 24);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)));
  }
  // A carry out of the mantissa steps the exponent, up to infinity, as it must.
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - (112u << 23);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

float BFloat16ToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace crease
