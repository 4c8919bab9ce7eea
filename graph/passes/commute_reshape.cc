// SPDX-License-Identifier: Apache-2.0
// Reshape, Flatten, Squeeze and Unsqueeze keep the order of elements. A map along an axis of size C
// with T elements behind it takes element i by channel (i / T) % C. It is a map along axis b of the
// other shape, of size D with U elements behind it, if (i / T) % C follows from (i / U) % D.
#include <algorithm>
#include <optional>

#include "graph/passes/commute.h"

namespace crease::fold {
namespace {

// Elements behind `axis`, if known.
std::optional<int64_t> Trailing(const TensorType& type, int axis) {
  int64_t product = 1;
  for (int i = axis + 1; i < type.rank(); ++i) {
    const Dim& dim = type.dims[static_cast<size_t>(i)];
    if (!dim.known() || __builtin_mul_overflow(product, dim.value, &product)) return std::nullopt;
  }
  return product;
}

// Elements before `axis`, if known.
std::optional<int64_t> Leading(const TensorType& type, int axis) {
  int64_t product = 1;
  for (int i = 0; i < axis; ++i) {
    const Dim& dim = type.dims[static_cast<size_t>(i)];
    if (!dim.known() || __builtin_mul_overflow(product, dim.value, &product)) return std::nullopt;
  }
  return product;
}

// The leading dimensions up to `axis` of both are the same, known or by the same name.
bool SameLeading(const TensorType& a, int a_axis, const TensorType& b, int b_axis) {
  if (a_axis != b_axis) return false;
  for (int i = 0; i < a_axis; ++i) {
    const Dim &p = a.dims[static_cast<size_t>(i)], &q = b.dims[static_cast<size_t>(i)];
    if (!(p == q) || (!p.known() && p.symbol.empty())) return false;
  }
  return true;
}

// `map` with runs of `run` equal channels as one channel; nothing if a run differs within.
std::optional<Affine> Shrink(const Affine& map, int64_t run) {
  if (run < 1 || static_cast<int64_t>(map.size()) % run != 0) return std::nullopt;
  Affine result{map.axis, {}, {}};
  for (size_t c = 0; c < map.size(); ++c) {
    const size_t first = c / static_cast<size_t>(run) * static_cast<size_t>(run);
    if (map.scale[c] != map.scale[first] || map.shift[c] != map.shift[first]) return std::nullopt;
    if (c == first) {
      result.scale.push_back(map.scale[c]);
      result.shift.push_back(map.shift[c]);
    }
  }
  return result;
}

// The map along `axis` of `to` if the channel there tells the one of `map`, `behind` elements each.
std::optional<Affine> Onto(const Affine& map, int64_t behind, const TensorType& to, int axis) {
  const Dim& dim = to.dims[static_cast<size_t>(axis)];
  const std::optional<int64_t> trailing = Trailing(to, axis);
  if (!dim.known() || dim.value < 1 || !trailing || *trailing < 1 || behind < 1) return std::nullopt;
  Affine source = map;
  int64_t step = behind;
  if (*trailing > behind) {  // coarser there: channels that fall together must have one map
    if (*trailing % behind != 0) return std::nullopt;
    std::optional<Affine> shrunk = Shrink(map, *trailing / behind);
    if (!shrunk) return std::nullopt;
    source = std::move(*shrunk);
    step = *trailing;
  }
  const auto channels = static_cast<int64_t>(source.size());
  int64_t reach = 0, room = 0;
  if (step % *trailing != 0 || __builtin_mul_overflow(step, channels, &reach) ||
      __builtin_mul_overflow(*trailing, dim.value, &room)) {
    return std::nullopt;
  }
  // One channel left is a uniform map; else the axis must span whole periods.
  if (channels > 1 && room % reach != 0) return std::nullopt;
  Affine result = Affine::Identity(axis, static_cast<size_t>(dim.value));
  for (int64_t d = 0; d < dim.value; ++d) {
    const auto c = static_cast<size_t>(d / (step / *trailing) % channels);
    result.scale[static_cast<size_t>(d)] = source.scale[c];
    result.shift[static_cast<size_t>(d)] = source.shift[c];
  }
  return result;
}

}  // namespace

Outcome<Affine> CommuteReshape(const FoldContext& context, ValueId from, ValueId to, const Affine& map) {
  if (std::optional<Affine> uniform = Shrink(map, static_cast<int64_t>(map.size()))) return *uniform;
  const TensorType &a = context.type(from), &b = context.type(to);
  const std::string name = "'" + Printable(context.graph.value(to).name) + "'";
  if (!a.has_rank || !b.has_rank || map.axis >= a.rank()) return Refusal{"shape-unknown", name, "a rank is unknown"};
  const auto channels = static_cast<int64_t>(map.size());
  if (context.dim(from, map.axis) != channels) return Refusal{"shape-unknown", name, "the channel count is unknown"};
  const std::optional<int64_t> behind = Trailing(a, map.axis), before = Leading(a, map.axis);
  for (int axis = 0; axis < b.rank(); ++axis) {
    const Dim& dim = b.dims[static_cast<size_t>(axis)];
    if (!dim.known()) continue;
    // The channel axis whole, found by what is before it: sizes behind it may be unknown then.
    const std::optional<int64_t> leading = Leading(b, axis);
    if (dim.value == channels && ((before && leading && *before == *leading) || SameLeading(a, map.axis, b, axis))) {
      Affine result = map;
      result.axis = axis;
      return result;
    }
    if (!behind) continue;
    if (std::optional<Affine> found = Onto(map, *behind, b, axis)) return *found;
  }
  if (!behind) return Refusal{"shape-unknown", name, "sizes behind the channels are unknown"};
  return Refusal{"uneven-channels", name, "no axis of the other shape keeps the channels apart"};
}

}  // namespace crease::fold
