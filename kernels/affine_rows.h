// SPDX-License-Identifier: Apache-2.0
// y = scale[c] * x + shift[c] in vector code, with an epilogue: what a batch-norm is at inference.
// Compiled for every target; ask for a pointer when a kernel is made.
#pragma once

#include <cstdint>

#include "kernels/epilogue.h"
#include "kernels/view.h"

namespace crease {

// How a CPU likes memory to be walked: in the order of addresses, or several pages in turns. Figures in
// affine_vector-inl.h.
enum class Walk : uint8_t { kOrder, kPages };

// That of this machine, by its maker. Thread-safe.
Walk PreferredWalk();

// Elements of src, residual and dst are of one dtype: float32, float64, float16 or bfloat16. scale and
// shift are float, for float64 they are double. dst may be src or residual.
struct AffineArgs {
  const void* src = nullptr;
  const void* residual = nullptr;  // null without one
  void* dst = nullptr;
  const void* scale = nullptr;
  const void* shift = nullptr;
  const void* pivot = nullptr;  // for the exact form only
  float a = 0, b = 0;           // of the activation
  bool stream = false;          // write past the caches; ignored where lines would be written in parts
  bool fetch = false;           // in pages: fetch lines before they are written, worth it where L2 does not hold them
  bool fetch_source = false;    // in order, below AVX-512: fetch lines before they are read
  bool past_l2 = false;         // in order, AVX-512: L2 does not hold what a worker reads and writes
  Walk walk = Walk::kOrder;     // targets below AVX-512 know but this one
  int64_t cycle = 0;            // of dense rows: how many columns the parameters repeat after; 0 for never
};

// NCHW: elements [begin, end) of a dense tensor of planes of `plane` elements; plane p belongs to
// channel p % channels.
using AffinePlanes = void (*)(const AffineArgs& args, int64_t channels, int64_t plane, int64_t begin, int64_t end);

// Channels-last: rows [begin, end) of `channels` elements, pitches apart.
struct AffinePitches {
  int64_t src, residual, dst;
};
using AffinePixels = void (*)(const AffineArgs& args, int64_t channels, const AffinePitches& pitches, int64_t begin,
                              int64_t end);

// Both forms of one map; null where it is not compiled.
struct AffineRows {
  AffinePlanes planes = nullptr;
  AffinePixels pixels = nullptr;
};

// float32. Null for a residual with an activation other than Relu, Clip, LeakyRelu, HardSwish and Silu.
AffineRows FindAffineRows(Activation activation, Residual residual);

// The exact form, scale[c] * (x - pivot[c]) + shift[c]: with the mean as pivot nothing cancels where the mean is large
// against the deviation. Null for an activation other than those above, and for any epilogue on float64.
AffineRows FindExactRows(DType dtype, Activation activation, Residual residual);

}  // namespace crease
