// SPDX-License-Identifier: Apache-2.0
// Errors as values. The library neither throws nor prints across this interface.
#pragma once

#include <cassert>
#include <string>
#include <utility>
#include <variant>

#pragma GCC visibility push(default)
namespace crease {

enum class ErrorCode {
  kInvalidArgument,  // the caller's argument is wrong: a name, a shape, a dtype, an option
  kInvalidModel,     // the model's bytes or its graph break a rule
  kUnsupported,      // valid, but Crease has no implementation for it
  kLimitExceeded,    // a limit in Options was met (file size, tensor bytes, nodes, arena, ...)
  kIo,               // the operating system refused to read or write
  kOutOfMemory,      // an allocation failed; the object is still usable
  kInternal,         // a bug in Crease
};

const char* Name(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // what is wrong, what was expected and what was found
  std::string where;    // the node, tensor or file that it concerns; may be empty

  // "where: message", or the message alone.
  std::string ToString() const;
};

// A value or an Error. A Result<void> is a success or an Error.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & { return *Get(); }
  const T& value() const& { return *Get(); }
  T&& value() && { return std::move(*Get()); }
  T& operator*() & { return *Get(); }
  const T& operator*() const& { return *Get(); }
  T&& operator*() && { return std::move(*Get()); }
  T* operator->() { return Get(); }
  const T* operator->() const { return Get(); }

  const Error& error() const& { return *std::get_if<1>(&state_); }
  Error&& error() && { return std::move(*std::get_if<1>(&state_)); }

 private:
  T* Get() {
    assert(ok());
    return std::get_if<0>(&state_);
  }
  const T* Get() const {
    assert(ok());
    return std::get_if<0>(&state_);
  }

  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}

  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  const Error& error() const& { return error_; }
  Error&& error() && { return std::move(error_); }

 private:
  Error error_;
  bool ok_ = true;
};

}  // namespace crease
#pragma GCC visibility pop
