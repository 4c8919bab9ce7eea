// SPDX-License-Identifier: Apache-2.0
// Mean and biased variance of every channel of a batch, over all threads, with the same bits at any number of them. And
// what they have in common with the maps of batch_norm.cc: a call's scratch, and how rows are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/affine.h"
#include "kernels/batch_norm.h"
#include "kernels/batch_norm_map.h"
#include "kernels/kernel.h"
#include "kernels/moments_rows.h"
#include "kernels/rounding.h"

namespace crease {

inline constexpr int64_t kRowPart = 512;  // pixels: parts into which rows are split, whatever the number of threads

// Rounded up, so that what follows is aligned.
inline size_t AlignedBytes(size_t bytes) { return static_cast<size_t>(RoundUp(static_cast<int64_t>(bytes), 64)); }

// Hands out pieces of a call's scratch.
class NormScratch {
 public:
  explicit NormScratch(const RunContext& context) : at_(context.scratch) {}
  template <typename T>
  std::span<T> Take(int64_t count) {
    auto* first = reinterpret_cast<T*>(at_);
    at_ += AlignedBytes(static_cast<size_t>(count) * sizeof(T));
    std::uninitialized_default_construct_n(first, count);
    return {first, static_cast<size_t>(count)};
  }
  template <typename T>
  NormMapView<T> TakeMap(int64_t channels) {
    const int64_t period = PatternPeriod(channels);
    return NormMapView<T>::In(Take<T>(NormMapView<T>::Room(period)).data(), channels, period);
  }

 private:
  std::byte* at_;
};

inline const std::byte* ElementAt(const NormTensor& t, int64_t element) {
  return static_cast<const std::byte*>(t.src) + element * static_cast<int64_t>(ByteSize(t.dtype));
}

// Where the tensor's rows are read from.
inline ReadFrom WhereFrom(const NormTensor& t) {
  const int64_t bytes = t.values_per_channel() * t.channels * static_cast<int64_t>(ByteSize(t.dtype));
  if (PreferredWalk() == Walk::kPages) return ReadFrom::kMemory;
  return ShouldStream(bytes) ? ReadFrom::kFetched : ReadFrom::kCaches;
}

// To mean and var, one entry a channel each. Takes StatisticsBytes of the scratch.
void ChannelStatistics(const RunContext& context, const NormTensor& t, NormScratch& scratch, std::span<double> mean,
                       std::span<double> var);
size_t StatisticsBytes(const NormTensor& t);

}  // namespace crease
