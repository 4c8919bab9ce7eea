// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_pack.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "kernels/amx.h"
#include "kernels/rounding.h"
#include "kernels/weight_memory.h"

namespace crease {
namespace {

float ReadFloat(const std::byte* bytes, int64_t index) {
  float value;
  std::memcpy(&value, bytes + static_cast<size_t>(index) * sizeof(float), sizeof(float));
  return value;
}

// Some channels of every tap and column, gathered close together: sources may be powers of two apart.
constexpr int64_t kBlockFloats = 256;  // of one column

void PackBlock(const MatrixSource& source, const GemmPanel& panel, const GemmOps& ops, int64_t first_channel,
               int64_t channels, float* dst) {
  const int64_t width = int64_t{panel.vectors} * ops.lanes;
  const int64_t columns = width - ops.lanes + panel.last;
  alignas(64) float block[kMaxTileVectors * kMaxLanes * kBlockFloats];
  const int64_t from = panel.group * source.group_stride +
                       (panel.column - panel.group * source.columns) * source.column_stride +
                       first_channel * source.channel_stride;
  for (int64_t j = 0; j < columns; ++j) {
    const std::byte* column =
        source.values->bytes() + static_cast<size_t>(from + j * source.column_stride) * sizeof(float);
    std::memcpy(block + j * kBlockFloats, column, static_cast<size_t>(channels * source.taps) * sizeof(float));
  }
  for (int64_t tap = 0; tap < source.taps; ++tap) {
    ops.transpose(block + tap, kBlockFloats, source.taps, channels, columns, width,
                  dst + (tap * source.channels + first_channel) * width, width);
  }
}

// Any strides.
void PackElements(const MatrixSource& source, const GemmPanel& panel, int64_t width, int64_t columns, float* dst) {
  int64_t offsets[kMaxTileVectors * kMaxLanes];
  for (int64_t j = 0; j < columns; ++j) {
    offsets[j] = source.column_offset(panel.column - panel.group * source.columns + j);
  }
  for (int64_t tap = 0; tap < source.taps; ++tap) {
    for (int64_t c = 0; c < source.channels; ++c) {
      const int64_t row = panel.group * source.group_stride + source.tap_at(tap) + c * source.channel_stride;
      for (int64_t j = 0; j < width; ++j) {
        *dst++ = j < columns ? ReadFloat(source.values->bytes(), row + offsets[j]) : 0.0f;
      }
    }
  }
}

void PackPanel(const MatrixSource& source, const GemmPanel& panel, const GemmOps& ops, float* dst) {
  const int64_t width = int64_t{panel.vectors} * ops.lanes;
  const int64_t columns = width - ops.lanes + panel.last;
  for (int64_t j = 0; j < width; ++j) {
    float bias = 0;
    if (source.bias != nullptr && j < columns) {
      bias = source.bias_scale * ReadFloat(source.bias->bytes(), source.bias->size() == 1 ? 0 : panel.column + j);
    }
    dst[j] = bias;
  }
  dst += width;
  const bool runs =
      source.column_taps == 1 && source.channel_stride == source.taps && (source.taps == 1 || source.tap_stride == 1);
  const int64_t most = kBlockFloats / source.taps;
  if (runs && most > 0) {
    for (int64_t c = 0; c < source.channels; c += most) {
      PackBlock(source, panel, ops, c, std::min(most, source.channels - c), dst);
    }
  } else {
    PackElements(source, panel, width, columns, dst);
  }
  if (source.scale != 1) {
    for (int64_t i = 0; i < source.depth() * width; ++i) dst[i] *= source.scale;
  }
}

std::string Key(std::string key, const MatrixSource& source, int lanes, int vectors) {
  const auto add = [&key](auto value) { key += ' ' + std::to_string(value); };
  add(reinterpret_cast<uintptr_t>(source.values->bytes()));
  add(source.bias == nullptr ? 0 : reinterpret_cast<uintptr_t>(source.bias->bytes()));
  for (const float scale : {source.scale, source.bias_scale}) add(scale);
  for (const int64_t value : {source.groups, source.columns, source.taps, source.channels, source.column_taps,
                              source.group_stride, source.column_stride, source.tap_stride, source.channel_stride,
                              source.tap_columns, source.tap_row_stride, source.tap_offset}) {
    add(value);
  }
  add(lanes);
  add(vectors);
  return key;
}

constexpr int kLeastBalance = -100;

// What AmxOps multiplies each of a row's numbers by.
std::vector<float> Balance(const MatrixSource& source, const AmxOps& ops) {
  const auto depth = static_cast<size_t>(source.depth());
  std::vector<float> all(depth, 0.0f), column(depth), largest(depth);
  // A column's numbers in any order, then that of the rows.
  const bool runs = source.column_taps == 1 && source.tap_columns == 0 &&
                    ((source.tap_stride == 1 && source.channel_stride == source.taps) ||
                     (source.taps == 1 && source.channel_stride == 1));
  const auto at = [&](int64_t k) {
    return source.tap_at(k / source.channels) + k % source.channels * source.channel_stride;
  };
  for (int64_t j = 0; j < source.columns; ++j) {
    const int64_t from = source.column_offset(j);
    if (runs) {
      std::memcpy(column.data(), source.values->bytes() + static_cast<size_t>(from) * sizeof(float),
                  depth * sizeof(float));
    } else {
      for (size_t k = 0; k < depth; ++k) {
        column[k] = ReadFloat(source.values->bytes(), from + at(static_cast<int64_t>(k)));
      }
    }
    ops.largest(column.data(), source.depth(), all.data());
  }
  for (size_t k = 0; k < depth; ++k) largest[k] = all[runs ? static_cast<size_t>(at(static_cast<int64_t>(k))) : k];
  BalanceOf(largest);
  return largest;
}

// `pack` fills a panel; false if it lacked memory. Null in that case.
template <typename Pack>
std::shared_ptr<PackedGemm> PackPanels(std::vector<GemmPanel> panels, int64_t rows, int lanes, Executor* executor,
                                       const Pack& pack) {
  const GemmPanel& end = panels.back();
  const size_t count = end.offset + static_cast<size_t>(rows * end.vectors * lanes);
  auto packed = std::make_shared<PackedGemm>(std::move(panels), count);
  if (packed->values.data() == nullptr) return nullptr;
  SerialExecutor serial;
  Executor& on = executor == nullptr ? serial : *executor;
  std::atomic<bool> done = true;
  on.ParallelFor(static_cast<int64_t>(packed->panels.size()), [&](int64_t begin, int64_t end_panel) {
    for (int64_t i = begin; i < end_panel; ++i) {
      const GemmPanel& panel = packed->panels[static_cast<size_t>(i)];
      if (!pack(panel, packed->values.data() + panel.offset)) done = false;
    }
  });
  if (!done) return nullptr;
  return packed;
}

template <typename Make>
Result<std::shared_ptr<const PackedGemm>> Cached(PackCache* cache, std::string kind, const MatrixSource& source,
                                                 int lanes, int vectors, const Make& make) {
  const PackCache::Packed packed =
      cache == nullptr ? make() : cache->GetOrMake(Key(std::move(kind), source, lanes, vectors), make);
  if (packed == nullptr) return Error{ErrorCode::kOutOfMemory, "no memory for packed weights", ""};
  return std::static_pointer_cast<const PackedGemm>(packed);
}

}  // namespace

bool AreFinite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000;
  bool all = true;
  for (const float value : values) all &= (std::bit_cast<uint32_t>(value) & kExponent) != kExponent;
  return all;
}

std::vector<GemmPanel> PlanPanels(int64_t groups, int64_t columns, int64_t rows, int lanes, int widest, int64_t parts) {
  std::vector<GemmPanel> panels;
  size_t offset = 0;
  const int64_t vectors = DivideUp(columns, lanes);
  const auto end_of = [&](int64_t part) { return std::min(vectors * (part + 1) / parts * lanes, columns); };
  for (int64_t i = 0; i < groups * parts; ++i) {
    const int64_t g = i / parts, part = i % parts, end = end_of(part);
    for (int64_t column = part == 0 ? 0 : end_of(part - 1); column < end;) {
      const int64_t left = end - column;
      const int64_t vectors_left = DivideUp(left, lanes);
      GemmPanel panel;
      panel.column = g * columns + column;
      panel.group = g;
      panel.vectors = static_cast<int>(DivideUp(vectors_left, DivideUp(vectors_left, widest)));
      const int64_t width = std::min<int64_t>(left, int64_t{panel.vectors} * lanes);
      panel.last = static_cast<int>(width - int64_t{panel.vectors - 1} * lanes);
      panel.offset = offset;
      panels.push_back(panel);
      offset += static_cast<size_t>(rows * panel.vectors * lanes);
      offset = (offset + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
      column += width;
    }
  }
  return panels;
}

void BalanceOf(std::vector<float>& largest) {
  const float most = *std::max_element(largest.begin(), largest.end());
  for (float& x : largest) x = x == 0 ? 0 : std::ldexp(1.0f, std::max(std::ilogb(x) - std::ilogb(most), kLeastBalance));
}

FloatBuffer::FloatBuffer(size_t count)
    : data_(std::static_pointer_cast<float>(AllocateWeights(count * sizeof(float)))) {}

Result<std::shared_ptr<const PackedGemm>> PackGemm(const MatrixSource& source, const GemmOps& ops, int vectors,
                                                   int64_t parts, PackCache* cache, Executor* executor) {
  const auto make = [&]() -> PackCache::Packed {
    return PackPanels(PlanPanels(source.groups, source.columns, source.depth() + 1, ops.lanes, vectors, parts),
                      source.depth() + 1, ops.lanes, executor, [&](const GemmPanel& panel, float* dst) {
                        PackPanel(source, panel, ops, dst);
                        return true;
                      });
  };
  return Cached(cache, "gemm " + std::to_string(parts), source, ops.lanes, vectors, make);
}

Result<std::shared_ptr<const PackedGemm>> PackAmxGemm(const MatrixSource& source, PackCache* cache,
                                                      Executor* executor) {
  const AmxOps& ops = *GetAmxOps();
  const int64_t chunks = DivideUp(source.depth(), kAmxDepth);
  const int64_t rows = 2 + chunks * kAmxChunkFloats;  // of floats; the bias, the scales, the digits
  const auto make = [&]() -> PackCache::Packed {
    std::vector<float> balance = Balance(source, ops);
    const auto pack = [&](const GemmPanel& panel, float* dst) {
      const int64_t width = int64_t{panel.vectors} * kAmxColumns;
      const auto count = static_cast<size_t>((source.depth() + 1) * width);
      const std::unique_ptr<float[]> floats(new (std::nothrow) float[count]);
      if (floats == nullptr) return false;
      PackPanel(source, panel, GetGemmOps(), floats.get());
      std::copy_n(floats.get(), width, dst);
      ops.pack_columns(floats.get() + width, source.depth(), width, balance.data(), dst + width, dst + 2 * width);
      return true;
    };
    auto packed =
        PackPanels(PlanPanels(source.groups, source.columns, rows, kAmxColumns, 2), rows, kAmxColumns, executor, pack);
    if (packed != nullptr) packed->balance = std::move(balance);
    return packed;
  };
  return Cached(cache, "amx", source, kAmxColumns, 2, make);
}

}  // namespace crease
