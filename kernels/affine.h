// SPDX-License-Identifier: Apache-2.0
// Per-channel affine maps over whole tensors, f32 parameters, split over threads; for the Affine and
// BatchNormalization kernels and for BatchNorm2d.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/affine_rows.h"
#include "kernels/kernel.h"

namespace crease {

// scale and shift repeated so that dense channels-last data is whole vectors: (3 channels -> 48 values).
// Each has `period` entries, a multiple of channels.
template <typename T>
struct AffinePattern {
  std::vector<T> scale, shift;
  int64_t period = 0;
};
template <typename T>
AffinePattern<T> MakeAffinePattern(std::vector<T> scale, std::vector<T> shift);

// Plain NCHW: batch * channels planes of `plane` elements. args.stream is decided here.
void RunAffinePlain(const RunContext& context, AffinePlanes rows, AffineArgs args, DType dtype, int64_t batch,
                    int64_t channels, int64_t plane);

// Dense channels-last of `count` elements: args.scale and args.shift hold `period` entries; the last
// period may be cut.
void RunAffineDense(const RunContext& context, AffinePixels rows, AffineArgs args, DType dtype, int64_t period,
                    int64_t count);

// Channels-last of `pixels` rows with pitches.
void RunAffinePitched(const RunContext& context, AffinePixels rows, const AffineArgs& args, int64_t channels,
                      const AffinePitches& pitches, int64_t pixels);

// Whether a result of so many bytes, with sources as large, is better written past the caches.
bool ShouldStream(int64_t bytes);

}  // namespace crease
