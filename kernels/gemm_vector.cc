// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_vector.h"

#include "kernels/rounding.h"
#include "kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm_vector.cc"
#include <hwy/foreach_target.h>
// After foreach_target.h, so that each target has its own copy.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int64_t kFloat = sizeof(float);

// `count` floats of the matrix, wherever they lie: a file's weights need not be aligned as floats are.
template <class D>
HWY_INLINE hn::Vec<D> LoadBytes(D d, const uint8_t* from) {
  return hn::BitCast(d, hn::LoadU(hn::Repartition<uint8_t, D>(), from));
}
template <class D>
HWY_INLINE hn::Vec<D> LoadBytesN(D d, const uint8_t* from, size_t count) {
  return hn::BitCast(d, hn::LoadN(hn::Repartition<uint8_t, D>(), from, count * kFloat));
}

// kRows dot products, two sums each. What a row's result is does not depend on kRows. kMore: the rows after these are
// on their way meanwhile: from beyond L2 they come 5 to 10 % faster so than by what the processor guesses.
template <int kRows, bool kMore>
HWY_INLINE void DotRows(const uint8_t* matrix, int64_t depth, const float* src, float* sums) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V even[kRows], odd[kRows];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) even[r] = odd[r] = hn::Zero(d);
  int64_t k = 0;
  for (; k + 2 * lanes <= depth; k += 2 * lanes) {
    const V x0 = hn::LoadU(d, src + k), x1 = hn::LoadU(d, src + k + lanes);
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* from = matrix + (r * depth + k) * kFloat;
      even[r] = hn::MulAdd(x0, LoadBytes(d, from), even[r]);
      odd[r] = hn::MulAdd(x1, LoadBytes(d, from + lanes * kFloat), odd[r]);
      if constexpr (!kMore) continue;
      for (int64_t line = 0; line < 2 * lanes * kFloat; line += 64) hwy::Prefetch(from + kRows * depth * kFloat + line);
    }
  }
  for (; k < depth; k += lanes) {
    const size_t count = static_cast<size_t>(std::min(lanes, depth - k));
    const V x = hn::LoadN(d, src + k, count);
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r)
      even[r] = hn::MulAdd(x, LoadBytesN(d, matrix + (r * depth + k) * kFloat, count), even[r]);
  }
  for (int r = 0; r < kRows; ++r) sums[r] = hn::ReduceSum(d, hn::Add(even[r], odd[r]));
}

// `following`: rows that exist behind these. A prefetch from beyond them may wait for the page table.
void Dot(const uint8_t* matrix, int64_t depth, const float* src, int64_t rows, int64_t following, float* sums) {
  constexpr int kRows = 4;
  const int64_t more = std::min(rows - kRows, rows + following - 2 * kRows);
  int64_t r = 0;
  for (; r <= more; r += kRows) DotRows<kRows, true>(matrix + r * depth * kFloat, depth, src, sums + r);
  for (; r + kRows <= rows; r += kRows) DotRows<kRows, false>(matrix + r * depth * kFloat, depth, src, sums + r);
  for (; r < rows; ++r) DotRows<1, false>(matrix + r * depth * kFloat, depth, src, sums + r);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace crease {

HWY_EXPORT(Dot);

ConstBytes MatrixShare(const MatrixVector& product, int worker, int workers) {
  const ConstBytes all(product.matrix.bytes(), product.matrix.byte_size());
  const size_t begin = all.size() * static_cast<size_t>(worker) / static_cast<size_t>(workers);
  return all.subspan(begin, all.size() * static_cast<size_t>(worker + 1) / static_cast<size_t>(workers) - begin);
}

void Multiply(const MatrixVector& product, const RunContext& context, const float* src, float* dst,
              const float* residual) {
  const uint8_t* matrix = reinterpret_cast<const uint8_t*>(product.matrix.bytes());
  const GemmOps& ops = GetGemmOps();
  // Small products are not worth waking a thread for.
  constexpr int64_t kMinimumFloats = 16384;
  const int64_t grain = std::max<int64_t>(kMinimumFloats / product.depth, 1);
  const int64_t units = DivideUp(product.columns, grain);
  context.ParallelFor(units, [&](int64_t begin, int64_t end) {
    constexpr int64_t kBlock = 64;
    alignas(64) float sums[kBlock];
    const int64_t last = std::min(end * grain, product.columns);
    for (int64_t j = begin * grain; j < last; j += kBlock) {
      const int64_t count = std::min(kBlock, last - j);
      HWY_DYNAMIC_DISPATCH(Dot)
      (matrix + j * product.depth * static_cast<int64_t>(sizeof(float)), product.depth, src, count, last - j - count,
       sums);
      for (int64_t i = 0; i < count; ++i) {
        float y = product.scale * sums[i];
        if (product.bias.defined()) {
          y += product.bias_scale * product.bias.elements<float>()[product.bias.size() == 1 ? 0 : j + i];
        }
        sums[i] = y;
      }
      ops.finish({sums, kBlock, dst + j, kBlock, residual == nullptr ? nullptr : residual + j, kBlock, 1, count},
                 product.epilogue);
    }
  });
}

}  // namespace crease
#endif
