// SPDX-License-Identifier: Apache-2.0
// How the library passes errors on inside.
#pragma once

#include "crease/status.h"

#define CREASE_CONCAT_INNER_(a, b) a##b
#define CREASE_CONCAT_(a, b) CREASE_CONCAT_INNER_(a, b)

// Leaves the enclosing function with the error of `expr`, a Result<T> of any T.
#define CREASE_RETURN_IF_ERROR(expr)                                                                                   \
  do {                                                                                                                 \
    if (auto crease_result_ = (expr); !crease_result_.ok()) return ::crease::Error(std::move(crease_result_).error()); \
  } while (false)

// Declares `decl` as the value of `expr`, or leaves the enclosing function with its error.
#define CREASE_ASSIGN_OR_RETURN(decl, expr) \
  CREASE_ASSIGN_OR_RETURN_IMPL_(CREASE_CONCAT_(crease_result_, __LINE__), decl, expr)
#define CREASE_ASSIGN_OR_RETURN_IMPL_(tmp, decl, expr)           \
  auto tmp = (expr);                                             \
  if (!tmp.ok()) return ::crease::Error(std::move(tmp).error()); \
  decl = std::move(tmp).value()
