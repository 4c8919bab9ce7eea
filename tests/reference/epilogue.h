// SPDX-License-Identifier: Apache-2.0
// What a kernel does to its result, in double precision.
#pragma once

#include "kernels/epilogue.h"

namespace crease::test {

// The definitions of kernels/epilogue.h. NaN stays NaN.
double Activate(Activation activation, double a, double b, double x);

// The activation and the residual, where there is one, as `epilogue` says.
double Finish(const Epilogue& epilogue, double x, double residual);

}  // namespace crease::test
