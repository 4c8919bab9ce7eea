// SPDX-License-Identifier: Apache-2.0
// Per-channel affine maps over whole tensors, f32 parameters, split over threads; for the Affine and
// BatchNormalization kernels and for BatchNorm2d.
#pragma once

#include <cstdint>

#include "kernels/affine_rows.h"
#include "kernels/kernel.h"

namespace crease {

// A length, a multiple of `channels`, after which dense channels-last data starts a vector and a pixel
// at once (3 channels: 240); `channels` itself where that would be too long.
int64_t PatternPeriod(int64_t channels);

// Plain NCHW: batch * channels planes of `plane` elements. How memory is walked is decided here and in the two below,
// how results are written in this and the next.
void RunAffinePlain(const RunContext& context, AffinePlanes rows, AffineArgs args, DType dtype, int64_t batch,
                    int64_t channels, int64_t plane);

// Dense channels-last of `count` elements: args.scale and args.shift hold `period` entries, those of the channels again
// and again; the last period may be cut.
void RunAffineDense(const RunContext& context, AffinePixels rows, AffineArgs args, DType dtype, int64_t channels,
                    int64_t period, int64_t count);

// Channels-last of `pixels` rows with pitches.
void RunAffinePitched(const RunContext& context, AffinePixels rows, AffineArgs args, DType dtype, int64_t channels,
                      const AffinePitches& pitches, int64_t pixels);

// Bytes of the last-level cache that a process may well have: at most 32 MiB.
int64_t LastLevelBytes();

// Whether so many workers had better write a result of so many bytes, with sources as large, past the caches. By
// default as one of them, which also says whether caches hold what is read.
bool ShouldStream(int64_t bytes, int workers = 1);

}  // namespace crease
