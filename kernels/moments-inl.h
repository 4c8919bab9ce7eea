// SPDX-License-Identifier: Apache-2.0
// Moments of runs and columns in vector code. Per-target header.
//
// A block is read once, as deviations from a pivot: the mean of what came before, at first any element.
// Where the pivot turns out to be far from the block's own mean against its deviation, the block is read
// again, from a near cache, with that mean as pivot; so nothing cancels however large the mean.
#include "kernels/moments_rows.h"
#include "kernels/targets.h"

#if defined(CREASE_KERNELS_MOMENTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CREASE_KERNELS_MOMENTS_INL_H_
#undef CREASE_KERNELS_MOMENTS_INL_H_
#else
#define CREASE_KERNELS_MOMENTS_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "kernels/float_io-inl.h"

HWY_BEFORE_NAMESPACE();
namespace crease {
namespace HWY_NAMESPACE {

// Elements of a block: 16 KiB of float32. Also bounds what one lane adds up in single precision.
constexpr size_t kBlock = kMomentsBlock;
constexpr size_t kShort = 512;  // terms of a sum that single precision may finish
constexpr size_t kChains = 4;   // independent sums, for the latency of an addition
constexpr size_t kLongRun = kBlock / 2;
constexpr size_t kTurnsAhead = 2048;  // bytes
// A pivot is good where the squares about it are at most so many times those about the mean: the
// rounding error of their difference grows by as much.
constexpr double kGoodPivot = 1.25;
// Short sums have digits to spare. The mean of 8 independent values is always as good as this.
constexpr double kGoodShortPivot = 4;
// The mean of 16 independent values is as good as this but for one column in 16,000.
constexpr double kGoodLongPivot = 2;

// A pivot for values of type T is one of them: differences from it have few digits then, and their sums hardly round.
// About any float, the differences of 16-bit values all end in the same digits, so that their sums round alike: the
// mean of 980 of them was off by 2.4e-6 deviations.
template <typename T, class D, class V>
HWY_INLINE V RoundPivot(D d, V v) {
  if constexpr (kIsWide<T>) {
    return v;
  } else {
    return Widen<D, T>(d, hn::DemoteTo(hn::Rebind<T, D>(), v));
  }
}

template <typename T>
HWY_INLINE Wide<T> RoundPivot(double mean) {
  const hn::CappedTag<Wide<T>, 4> d;
  return hn::GetLane(RoundPivot<T>(d, hn::Set(d, static_cast<Wide<T>>(mean))));
}

// What is done beside the reading of a block, vector by vector: nothing. kApart: long runs are read as kChains streams,
// as MapLines does; else in order. Sums differ in their last bits.
template <bool kApartValue>
struct NoTask {
  static constexpr bool kApart = kApartValue;
  NoTask From(size_t) const { return {}; }
  void Whole(size_t) const {}
  void Part(size_t, size_t) const {}
};

// The sum of all lanes: in double where many terms went into them, else where the call would cost more
// than the loop.
template <class D, class V = hn::Vec<D>>
HWY_INLINE double SumLanes(D d, V v, size_t terms) {
  if (terms <= kShort) return static_cast<double>(hn::ReduceSum(d, v));
  HWY_ALIGN hn::TFromD<D> lanes[HWY_MAX_LANES_D(D)];
  hn::Store(v, d, lanes);
  double sum = 0;
  for (size_t i = 0; i < hn::Lanes(d); ++i) sum += static_cast<double>(lanes[i]);
  return sum;
}

// In every block of four lanes: the sums of a's, b's, c's and e's four lanes.
template <class D, class V>
HWY_INLINE V SumBlocks(D d, V a, V b, V c, V e) {
  const hn::Repartition<uint64_t, D> pairs;
  // 0 + 2 of both, then 1 + 3 of both.
  const V first = hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
  const V second = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
  const auto x = hn::BitCast(pairs, first), y = hn::BitCast(pairs, second);
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, x, y)), hn::BitCast(d, hn::InterleaveUpper(pairs, x, y)));
}

template <class V>
HWY_INLINE V SumChains(const V (&v)[kChains]) {
  return hn::Add(hn::Add(v[0], v[1]), hn::Add(v[2], v[3]));
}

// sum + x, by the units that multiply: for half of the sums where those that add have more to do. Zen 4, training of
// 4 images of 512 planes of 7x7 12.45 -> 12.0 us.
template <class D, class V>
HWY_INLINE V AddByMultiplier(D d, V sum, V x) {
  if constexpr (HWY_TARGET <= HWY_AVX3) {
    return hn::MulAdd(x, hn::Set(d, hn::TFromD<D>{1}), sum);
  } else {
    return hn::Add(sum, x);
  }
}

// Sums of deviations from the pivot and of their squares.
struct Deviations {
  double sum, squares;
};

// `task` is called with the offset from src of every vector that is read.
template <typename T, class Task>
HWY_INLINE Deviations BlockDeviations(const T* src, size_t n, size_t runs, size_t stride, Wide<T> pivot,
                                      const Task& task) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  const V p = hn::Set(d, pivot);
  V sum[kChains], square[kChains];
  for (size_t k = 0; k < kChains; ++k) sum[k] = square[k] = hn::Zero(d);
  const auto add = [&](size_t at, V& own_sum, V& own_square) HWY_ATTR {
    const V x = hn::Sub(LoadWide(d, src + at), p);
    own_sum = hn::Add(own_sum, x);
    own_square = hn::MulAdd(x, x, own_square);
    task.Whole(at);
  };
  for (size_t run = 0; run < runs; ++run) {
    const size_t from = run * stride;
    const size_t each = Task::kApart && n >= kLongRun ? n / kChains / lanes * lanes : lanes;
    size_t i = 0;
    while (i + kChains * each <= n) {
      for (const size_t end = i + each; i < end; i += lanes) {
        for (size_t k = 0; k < kChains; ++k) add(from + i + k * each, sum[k], square[k]);
      }
      i += (kChains - 1) * each;
    }
    for (; i + lanes <= n; i += lanes) add(from + i, sum[1], square[1]);
    if (i < n) {
      const V x = hn::IfThenElseZero(hn::FirstN(d, n - i), hn::Sub(LoadWideN(d, src + from + i, n - i), p));
      sum[0] = hn::Add(sum[0], x);
      square[0] = hn::MulAdd(x, x, square[0]);
      task.Part(from + i, n - i);
    }
  }
  const size_t terms = n * runs;
  return {SumLanes(d, SumChains(sum), terms), SumLanes(d, SumChains(square), terms)};
}

// A value near the mean of n elements: that of a vector in each quarter.
template <typename T>
HWY_INLINE Wide<T> SampleMean(const T* src, size_t n) {
  const hn::ScalableTag<Wide<T>> d;
  const size_t lanes = hn::Lanes(d);
  if (n < kChains * lanes) return hn::GetLane(LoadWideN(d, src, 1));
  auto sum = hn::Zero(d);
  for (size_t k = 0; k < kChains; ++k) sum = hn::Add(sum, LoadWide(d, src + k * (n / kChains)));
  return RoundPivot<T>(hn::ReduceSum(d, sum) / static_cast<Wide<T>>(kChains * lanes));
}

// Adds a block of `runs` runs of n elements, given by its sums about the pivot; reads it again if that was not good.
template <bool kApart, typename T>
HWY_INLINE void MergeBlock(const Deviations& first, const T* src, size_t n, size_t runs, size_t stride, Wide<T> pivot,
                           Moments& moments) {
  const auto terms = static_cast<double>(n * runs);
  const double inverse = 1 / terms;
  const auto block_of = [&](const Deviations& of) {
    const double rest = of.sum * inverse;
    // A NaN stays one: std::max returns its first argument then.
    return Moments{terms, static_cast<double>(pivot) + rest, std::max(of.squares - of.sum * rest, 0.0)};
  };
  Moments block = block_of(first);
  const Wide<T> better = RoundPivot<T>(block.mean);
  if (!(first.squares <= kGoodPivot * block.m2) && better != pivot) {
    pivot = better;
    block = block_of(BlockDeviations(src, n, runs, stride, pivot, NoTask<kApart>()));
  }
  moments.Merge(block);
}

// Adds `runs` runs of n elements, n * runs <= kBlock.
template <typename T, class Task>
HWY_INLINE void AddBlock(const T* src, size_t n, size_t runs, size_t stride, const Task& task, Moments& moments) {
  const auto pivot = moments.count > 0 ? RoundPivot<T>(moments.mean) : SampleMean(src, n);
  MergeBlock<Task::kApart>(BlockDeviations(src, n, runs, stride, pivot, task), src, n, runs, stride, pivot, moments);
}

// The first lines of every page of n elements, so that prefetchers follow from there on: they stop at a page's end.
// One thread, reading runs of 12 KB from memory: 9.5 ms without, 7.7 with.
template <typename T>
HWY_INLINE void FetchPageStarts(const T* src, size_t n) {
  constexpr uintptr_t kPage = 4096, kLine = 64, kLines = 4;
  const auto end = reinterpret_cast<uintptr_t>(src + n);
  for (auto page = reinterpret_cast<uintptr_t>(src); page < end; page = (page / kPage + 1) * kPage) {
    for (uintptr_t at = page; at < std::min(end, page + kLines * kLine); at += kLine) {
      __builtin_prefetch(reinterpret_cast<const void*>(at), 0, 2);
    }
  }
}

// Adds `runs` runs of n elements, `stride` apart; at most kBlock in all, or one run.
template <typename T, class Task>
HWY_INLINE void AddRuns(const T* src, size_t n, size_t runs, size_t stride, const Task& task, Moments& moments) {
  if (runs > 1) return AddBlock(src, n, runs, stride, task, moments);
  for (size_t i = 0; i < n; i += kBlock) {
    if (n - i > kBlock && !Task::kApart) FetchPageStarts(src + i + kBlock, std::min(kBlock, n - i - kBlock));
    AddBlock(src + i, std::min(kBlock, n - i), 1, 0, task.From(i), moments);
  }
}

// Planes of n elements in kChains images, `stride` apart, in turns, as many blocks of them as single precision needs;
// `task` is done beside them in order. `next`: what is read after them, in the same way.
//
// Prefetchers follow several streams as well as one, and where one starts anew the others go on. A program of its
// own, Zen 4, 98 MB in runs of 12 KB: a read takes 4.7 ms by single images, 3.4 by four; a channel beside the map of
// another, one thread and two, 9.2 and 5.2 ms, 6.5 and 4.4, 6.0 and 4.2 with lines fetched into L2.
template <typename T, class Task>
void AddTurns(const T* src, size_t n, size_t stride, const T* next, const Task& task, Moments& moments) {
  const hn::ScalableTag<Wide<T>> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d), whole = n / lanes * lanes;
  const size_t ahead = std::min(n, kTurnsAhead / sizeof(T));
  // Where the task is: it walks the first image, then the second.
  size_t at = 0, image = 0;
  const auto step = [&]() HWY_ATTR {
    if (HWY_LIKELY(at < whole)) {
      task.Whole(image + at);
      at += lanes;
      if (HWY_LIKELY(at < n)) return;
    } else {
      task.Part(image + at, n - at);
    }
    at = 0;
    image += stride;
  };
  const size_t blocks = (n + kBlock / kChains - 1) / (kBlock / kChains);
  const size_t each = ((n + blocks - 1) / blocks + lanes - 1) / lanes * lanes;
  for (size_t begin = 0; begin < n; begin += each) {
    const size_t end = std::min(n, begin + each), count = end - begin, terms = count * kChains;
    const auto pivot = moments.count > 0 ? RoundPivot<T>(moments.mean) : SampleMean(src, n);
    const V p = hn::Set(d, pivot);
    V sum[kChains], square[kChains];
    for (size_t k = 0; k < kChains; ++k) sum[k] = square[k] = hn::Zero(d);
    size_t i = begin;
    for (; i + lanes <= end; i += lanes) {
      const T* fetched = i + ahead < n ? src + i + ahead : next + (i + ahead - n);
      for (size_t k = 0; k < kChains; ++k) __builtin_prefetch(fetched + k * stride, 0, 2);
      for (size_t k = 0; k < kChains; ++k) {
        const V x = hn::Sub(LoadWide(d, src + i + k * stride), p);
        sum[k] = hn::Add(sum[k], x);
        square[k] = hn::MulAdd(x, x, square[k]);
      }
      for (size_t k = 0; k < kChains; ++k) step();
    }
    if (i < end) {
      const auto in = hn::FirstN(d, end - i);
      for (size_t k = 0; k < kChains; ++k) {
        const V x = hn::IfThenElseZero(in, hn::Sub(LoadWideN(d, src + i + k * stride, end - i), p));
        sum[k] = hn::Add(sum[k], x);
        square[k] = hn::MulAdd(x, x, square[k]);
        step();
      }
    }
    MergeBlock<false>({SumLanes(d, SumChains(sum), terms), SumLanes(d, SumChains(square), terms)}, src + begin, count,
                      kChains, stride, pivot, moments);
  }
}

// Of columns.
template <class VD>
struct ColumnMean {
  VD mean, m2;
};

// Of as many values as `inverse` is the reciprocal of, by sums of deviations from the pivot and of their squares.
template <class DD, class VD>
HWY_INLINE ColumnMean<VD> MeanOf(DD dd, VD inverse, VD pivot, VD sum, VD square) {
  return {hn::MulAdd(sum, inverse, pivot), hn::Max(hn::Zero(dd), hn::NegMulAdd(hn::Mul(sum, sum), inverse, square))};
}

// Merges `count` rows, given by sums of deviations from the pivot and of their squares, into the moments
// of `done` rows.
template <class DD, class VD>
HWY_INLINE void MergeColumns(DD dd, VD pivot, VD sum, VD square, double done, double count, double* mean, double* m2) {
  const ColumnMean<VD> own = MeanOf(dd, hn::Set(dd, 1 / count), pivot, sum, square);
  if (done == 0) {
    hn::StoreU(own.mean, dd, mean);
    hn::StoreU(own.m2, dd, m2);
    return;
  }
  const VD old = hn::LoadU(dd, mean);
  const VD delta = hn::Sub(own.mean, old);
  const double share = count / (done + count);
  hn::StoreU(hn::MulAdd(delta, hn::Set(dd, share), old), dd, mean);
  const VD both = hn::Add(hn::LoadU(dd, m2), own.m2);
  hn::StoreU(hn::MulAdd(hn::Mul(delta, delta), hn::Set(dd, share * done), both), dd, m2);
}

template <class D, class V>
HWY_INLINE void MergeWide(D d, V pivot, V sum, V square, double done, double count, double* mean, double* m2) {
  if constexpr (std::is_same_v<hn::TFromD<D>, double>) {
    MergeColumns(d, pivot, sum, square, done, count, mean, m2);
  } else {
    const hn::ScalableTag<double> dd;
    const size_t half = hn::Lanes(dd);
    MergeColumns(dd, hn::PromoteLowerTo(dd, pivot), hn::PromoteLowerTo(dd, sum), hn::PromoteLowerTo(dd, square), done,
                 count, mean, m2);
    MergeColumns(dd, hn::PromoteUpperTo(dd, pivot), hn::PromoteUpperTo(dd, sum), hn::PromoteUpperTo(dd, square), done,
                 count, mean + half, m2 + half);
  }
}

// Sums of deviations from the pivot and of their squares, column by column; room for whole vectors.
template <typename T>
struct ColumnSums {
  static constexpr size_t kRoom = static_cast<size_t>(kMaxColumns) + HWY_MAX_LANES_D(hn::ScalableTag<Wide<T>>);
  HWY_ALIGN Wide<T> pivot[kRoom];
  HWY_ALIGN Wide<T> sum[kRoom];
  HWY_ALIGN Wide<T> square[kRoom];
  HWY_ALIGN double mean[kRoom];
  HWY_ALIGN double m2[kRoom];
};

// Rows of columns that one lane adds up before that is added to what came before, so that a large total rounds once for
// so many terms.
constexpr size_t kRowsOfSum = 32;

// Sums over rows of deviations from the pivots and of their squares, of kVectors vectors of columns, with all that is
// kept of them in registers. load(row, v): a vector of a row; before(row) is done first.
template <size_t kVectors, class D, class Load, class Before>
HWY_INLINE void AddRowsOfColumns(D d, size_t rows, const hn::TFromD<D>* pivots, hn::TFromD<D>* sums,
                                 hn::TFromD<D>* squares, const Load& load, const Before& before) {
  using V = hn::Vec<D>;
  const size_t lanes = hn::Lanes(d);
  V pivot[kVectors];
  for (size_t v = 0; v < kVectors; ++v) pivot[v] = hn::Load(d, pivots + v * lanes);
  for (size_t row = 0; row < rows;) {
    const size_t stop = std::min(rows, row + kRowsOfSum);
    const bool more = row > 0;
    V sum[kVectors], square[kVectors];
    for (size_t v = 0; v < kVectors; ++v) sum[v] = square[v] = hn::Zero(d);
    for (; row < stop; ++row) {
      before(row);
      for (size_t v = 0; v < kVectors; ++v) {
        const V x = hn::Sub(load(row, v), pivot[v]);
        sum[v] = hn::Add(sum[v], x);
        square[v] = hn::MulAdd(x, x, square[v]);
      }
    }
    for (size_t v = 0; v < kVectors; ++v) {
      hn::TFromD<D>*to_sum = sums + v * lanes, *to_square = squares + v * lanes;
      hn::Store(more ? hn::Add(hn::Load(d, to_sum), sum[v]) : sum[v], d, to_sum);
      hn::Store(more ? hn::Add(hn::Load(d, to_square), square[v]) : square[v], d, to_square);
    }
  }
}

// The first n elements of a vector, all of them mostly; zero in the other lanes.
template <class D>
HWY_INLINE hn::Vec<D> LoadUpTo(D d, const hn::TFromD<D>* from, size_t n) {
  return HWY_LIKELY(n >= hn::Lanes(d)) ? hn::LoadU(d, from) : hn::LoadN(d, from, n);
}

// The first n elements of a vector, all of them mostly: AVX2 stores under a mask in tens of cycles on Zen 1.
template <class D, class V>
HWY_INLINE void StoreUpTo(V v, D d, hn::TFromD<D>* to, size_t n) {
  if (HWY_LIKELY(n >= hn::Lanes(d))) {
    hn::StoreU(v, d, to);
  } else {
    hn::StoreN(v, d, to, n);
  }
}

// The moments of n columns, m2 times `factor`.
template <typename T>
HWY_INLINE void CopyMoments(const ColumnSums<T>& sums, size_t n, double factor, double* mean, double* m2) {
  const hn::ScalableTag<double> d;
  const size_t lanes = hn::Lanes(d);
  for (size_t c = 0; c < n; c += lanes) {
    StoreUpTo(hn::Load(d, sums.mean + c), d, mean + c, n - c);
    StoreUpTo(hn::Mul(hn::Load(d, sums.m2 + c), hn::Set(d, factor)), d, m2 + c, n - c);
  }
}

// Pivots for the next block of n columns: the means of those before.
template <typename T>
HWY_INLINE void PivotsFromMeans(size_t n, ColumnSums<T>& sums) {
  const hn::ScalableTag<double> d;
  for (size_t c = 0; c < n; c += hn::Lanes(d)) {
    const auto mean = hn::Load(d, sums.mean + c);
    if constexpr (std::is_same_v<T, double>) {
      hn::Store(mean, d, sums.pivot + c);
    } else {
      const hn::Rebind<float, decltype(d)> df;
      hn::Store(RoundPivot<T>(df, hn::DemoteTo(df, mean)), df, sums.pivot + c);
    }
  }
}

// Whether sums were taken about good pivots: kGoodPivot, kGoodLongPivot or kGoodShortPivot says what is good.
template <typename T>
class PivotCheck {
 public:
  using D = hn::ScalableTag<Wide<T>>;
  using V = hn::Vec<D>;

  HWY_INLINE PivotCheck(double good, size_t count)
      : inverse_(hn::Set(D(), static_cast<Wide<T>>(1.0 / static_cast<double>(count)))),
        kept_(hn::Set(D(), static_cast<Wide<T>>(1 - 1 / good))) {}

  // The pivots where they were good or could be no better, else the means.
  HWY_INLINE V Better(V pivot, V sum, V square) const {
    const auto near = hn::Le(hn::Mul(hn::Mul(sum, sum), inverse_), hn::Mul(square, kept_));
    return hn::IfThenElse(near, pivot, RoundPivot<T>(D(), hn::MulAdd(sum, inverse_, pivot)));
  }

 private:
  V inverse_, kept_;
};

// Gives the columns whose pivot was not good their own means. Whether there were any.
template <typename T>
HWY_INLINE bool MovePivots(const PivotCheck<T>& check, size_t columns, ColumnSums<T>& sums) {
  const hn::ScalableTag<Wide<T>> d;
  bool moved = false;
  for (size_t c = 0; c < columns; c += hn::Lanes(d)) {
    const auto pivot = hn::Load(d, sums.pivot + c);
    const auto better = check.Better(pivot, hn::Load(d, sums.sum + c), hn::Load(d, sums.square + c));
    const auto moves = hn::And(hn::Ne(better, pivot), hn::FirstN(d, columns - c));
    if (hn::AllFalse(d, moves)) continue;
    moved = true;
    hn::Store(hn::IfThenElse(moves, better, pivot), d, sums.pivot + c);
  }
  return moved;
}

// Merges a block of `count` values a column into the moments of the `done` before. add() computes the block's sums
// about sums.pivot; called again, with better pivots for the columns that need them, where some were not good: what
// is computed for a column does not depend on those beside it.
template <typename T, class Add>
HWY_INLINE void AddBlockOfColumns(double good, size_t done, size_t count, size_t columns, ColumnSums<T>& sums,
                                  const Add& add) {
  const hn::ScalableTag<Wide<T>> d;
  const size_t lanes = hn::Lanes(d);
  add();
  if (MovePivots(PivotCheck<T>(good, count), columns, sums)) add();
  for (size_t c = 0; c < columns; c += lanes) {
    MergeWide(d, hn::Load(d, sums.pivot + c), hn::Load(d, sums.sum + c), hn::Load(d, sums.square + c),
              static_cast<double>(done), static_cast<double>(count), sums.mean + c, sums.m2 + c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace crease
HWY_AFTER_NAMESPACE();

#endif  // include guard that reopens for every target
