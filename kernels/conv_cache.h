// SPDX-License-Identifier: Apache-2.0
// The cache sizes, by the name that conv_gemm.cc includes.
#pragma once

#include "kernels/cache_sizes.h"
