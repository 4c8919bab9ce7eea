// SPDX-License-Identifier: Apache-2.0
// Constant data of a graph: an owning buffer, or a view that its owner keeps alive.
#pragma once

#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <type_traits>

#include "crease/tensor.h"
#include "graph/status.h"

namespace crease {

// ONNX allows any rank; networks have at most 6, Crease's own limit is this.
inline constexpr int kMaxRank = 8;

// Product of the dimensions. Fails on a negative dimension or one past int64.
Result<int64_t> ElementCount(std::span<const int64_t> shape);

// "(1, 3, 224, 224)"
std::string ToString(std::span<const int64_t> shape);

bool IsFloat(DType dtype);    // float16, bfloat16, float32, float64
bool IsInteger(DType dtype);  // every intN and uintN; not bool

// The DType of a C++ element type.
template <typename T>
constexpr DType DTypeOf() {
  if constexpr (std::is_same_v<T, float>) return DType::kFloat32;
  if constexpr (std::is_same_v<T, double>) return DType::kFloat64;
  if constexpr (std::is_same_v<T, int8_t>) return DType::kInt8;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::kUint8;
  if constexpr (std::is_same_v<T, int16_t>) return DType::kInt16;
  if constexpr (std::is_same_v<T, uint16_t>) return DType::kUint16;
  if constexpr (std::is_same_v<T, int32_t>) return DType::kInt32;
  if constexpr (std::is_same_v<T, uint32_t>) return DType::kUint32;
  if constexpr (std::is_same_v<T, int64_t>) return DType::kInt64;
  if constexpr (std::is_same_v<T, uint64_t>) return DType::kUint64;
  if constexpr (std::is_same_v<T, bool>) return DType::kBool;
  return DType::kUndefined;
}

// Reads elements of type T at any alignment: a file's raw_data starts where it likes.
template <typename T>
class Elements {
 public:
  Elements(const void* data, int64_t count) : data_(static_cast<const std::byte*>(data)), count_(count) {}
  int64_t size() const { return count_; }
  T operator[](int64_t i) const {
    T value;
    std::memcpy(&value, data_ + static_cast<size_t>(i) * sizeof(T), sizeof(T));
    return value;
  }

 private:
  const std::byte* data_;
  int64_t count_;
};

// An immutable, dense, row-major tensor; cheap to copy (shares its bytes). Safe to read from many
// threads. Only the function that allocates one may write it, through mutable_data().
class Tensor {
 public:
  Tensor() = default;

  // Owning, 64-byte aligned, zeroed. Errors: bad shape, out of memory.
  static Result<Tensor> Allocate(DType dtype, Shape shape);

  // A view of `bytes`, which `owner` keeps alive. Errors: bytes.size() differs from the shape's.
  static Result<Tensor> View(DType dtype, Shape shape, std::span<const std::byte> bytes,
                             std::shared_ptr<const void> owner);

  // Owning copy of values; their count must be the shape's (a broken invariant otherwise). Throws std::bad_alloc.
  template <typename T>
  static Tensor From(Shape shape, std::span<const T> values);
  template <typename T>
  static Tensor From(Shape shape, std::initializer_list<T> values) {
    return From<T>(std::move(shape), std::span<const T>(values.begin(), values.size()));
  }
  template <typename T>
  static Tensor Scalar(T value) {
    return From<T>({}, {value});
  }

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return static_cast<int>(shape_.size()); }
  int64_t dim(int axis) const { return shape_[static_cast<size_t>(axis)]; }
  int64_t size() const { return size_; }  // elements
  size_t byte_size() const { return static_cast<size_t>(size_) * ByteSize(dtype_); }
  bool defined() const { return dtype_ != DType::kUndefined; }

  const std::byte* bytes() const { return data_; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

  // Elements at any alignment; T must be the dtype's.
  template <typename T>
  Elements<T> elements() const {
    assert(DTypeOf<T>() == dtype_);
    return Elements<T>(data_, size_);
  }

  // Aligned pointer; only for tensors from Allocate or From (or after Aligned()).
  template <typename T>
  const T* data() const {
    assert(reinterpret_cast<uintptr_t>(data_) % alignof(T) == 0);
    return reinterpret_cast<const T*>(data_);
  }
  template <typename T>
  T* mutable_data() {
    assert(mutable_);
    return reinterpret_cast<T*>(const_cast<std::byte*>(data_));
  }

  // This tensor if its bytes are aligned for its dtype, else an aligned copy.
  Result<Tensor> Aligned() const;

  // Element i as double or int64, whatever the dtype (float16 and bfloat16 too).
  double AsDouble(int64_t i) const;
  int64_t AsInt64(int64_t i) const;

  // Same bytes, other shape with as many elements.
  Tensor Reshaped(Shape shape) const;

  // Converted element by element, rounding to nearest even; floats to integers truncate as C++ does,
  // out-of-range ones saturate.
  Result<Tensor> ConvertedTo(DType dtype) const;

 private:
  DType dtype_ = DType::kUndefined;
  bool mutable_ = false;
  Shape shape_;
  int64_t size_ = 0;
  const std::byte* data_ = nullptr;
  std::shared_ptr<const void> owner_;
};

template <typename T>
Tensor Tensor::From(Shape shape, std::span<const T> values) {
  Result<Tensor> made = Allocate(DTypeOf<T>(), std::move(shape));
  assert(made.ok() || made.error().code == ErrorCode::kOutOfMemory);
  if (!made.ok()) throw std::bad_alloc();
  assert(made->size() == static_cast<int64_t>(values.size()));
  if (!values.empty()) std::memcpy(made->mutable_data<T>(), values.data(), values.size_bytes());
  return std::move(made).value();
}

// IEEE half and bfloat16, as bit patterns, to and from float; rounding to nearest even.
float HalfToFloat(uint16_t bits);
uint16_t FloatToHalf(float value);
float BFloat16ToFloat(uint16_t bits);
uint16_t FloatToBFloat16(float value);

}  // namespace crease
