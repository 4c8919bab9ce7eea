// SPDX-License-Identifier: Apache-2.0
// Winograd's products without those of channels that are zero all over a patch: a ReLU leaves many in random networks,
// some in trained ones (docs/performance.md). Tiles are taken three by three; the channels in which some of the three
// patches have something are listed once, and only these are multiplied, at every point and for every filter. Sums
// begin at zero, to which a product with zero adds nothing, so that the bits are those of all products (but for the
// sign of a sum that underflows).
#include <algorithm>

#include "kernels/conv_winograd.h"

namespace crease {
namespace {

// Where lists gain only if fewer channels than that are left, they are not worth making.
constexpr double kLeastMostShare = 0.7;

// Calls f(group, first tile, tiles) for tiles taken three by three, or as evenly as that gives.
template <typename F>
void ForEachGroup(int64_t begin, int64_t end, F&& f) {
  const int64_t tiles = std::max<int64_t>(end - begin, 0), groups = DivideUp(tiles, int64_t{kSparseRows});
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t first = tiles * i / groups;
    f(i, begin + first, static_cast<int>(tiles * (i + 1) / groups - first));
  }
}

}  // namespace

// By the cycles of products; lists are made once for all points.
int64_t WinogradConv::PlanLists(int64_t begin) {
  if (!MayList()) return begin;
  if (packed_->finite != Known::kYes || shape_.channels > kMaxListed) return begin;
  const auto panels = static_cast<double>(packed_->panels.size()), channels = static_cast<double>(shape_.channels);
  const double vectors = static_cast<double>(DivideUp(shape_.filters, int64_t{gemm_->lanes})) / panels;
  const SparseCosts& costs = GetSparseOps().costs;
  lists_.most_share = 1;
  while (lists_.most_share > 0 &&
         costs.Sparse(vectors, lists_.most_share * channels) > costs.Dense(vectors, channels)) {
    lists_.most_share -= 1.0 / 64;
  }
  if (lists_.most_share < kLeastMostShare) return begin;
  lists_.ops = &GetSparseOps();
  lists_.marks = begin;
  lists_.mark_floats = DivideUp(shape_.channels, int64_t{8 * sizeof(float)});
  lists_.begin = RoundUp(begin + tile_block_ * lists_.mark_floats, kLineFloats);
  lists_.list_floats = ChannelList::Floats(shape_.channels);
  lists_.groups = DivideUp(tile_block_, int64_t{kSparseRows});
  return ListAt(kPointKinds, 0);
}

void WinogradConv::ListChannels(Block& block, float* scratch) const {
  block.listed = false;
  for (int kind = 0; kind < kPointKinds; ++kind) {
    const Range tiles = block.TilesOfKind(kind);
    block.lists[kind] = kind;
    for (int other = 0; other < kind; ++other) {
      const Range same = block.TilesOfKind(other);
      if (same.begin == tiles.begin && same.end == tiles.end) block.lists[kind] = block.lists[other];
    }
    if (block.lists[kind] != kind) continue;
    int64_t listed = 0, groups = 0;
    ForEachGroup(tiles.begin, tiles.end, [&](int64_t group, int64_t first, int count) {
      const uint8_t* marks[kSparseRows];
      for (int r = 0; r < count; ++r) {
        marks[r] = reinterpret_cast<const uint8_t*>(scratch + lists_.marks + (first + r) * lists_.mark_floats);
      }
      auto* list = reinterpret_cast<ChannelList*>(scratch + ListAt(kind, group));
      for (int r = 0; r < kSparseRows; ++r) list->rows[r] = (first + std::min(r, count - 1)) * tile_stride_;
      list->row_count = count;
      list->count = lists_.ops->list(marks, count, shape_.channels, list->channels());
      listed += list->count;
      ++groups;
    });
    if (static_cast<double>(listed) > lists_.most_share * static_cast<double>(groups * shape_.channels)) return;
  }
  block.listed = true;
}

void WinogradConv::MultiplyListed(const GemmPanel& panel, PointWeights weights, Range tiles, const float* points,
                                  float* products, const float* lists) const {
  SparseTiles t;
  t.lists = lists;
  t.list_floats = lists_.list_floats;
  t.count = DivideUp(std::max<int64_t>(tiles.end - tiles.begin, 0), int64_t{kSparseRows});
  t.a = points;
  t.b = weights.values + int64_t{panel.vectors} * gemm_->lanes;
  t.ahead = weights.next;
  t.ahead_floats = (1 + shape_.channels) * weights.next_width;
  t.dst = products + tiles.begin * panel_width_;
  t.dst_stride = panel_width_;
  t.last = gemm_->lanes;
  BoundsOf(Epilogue{}, t.lo, t.hi);
  lists_.ops->tiles[panel.vectors](t);
}

}  // namespace crease
