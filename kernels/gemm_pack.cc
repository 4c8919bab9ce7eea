// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_pack.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

namespace crease {
namespace {

constexpr size_t kAlignment = 64;

float ReadFloat(const std::byte* bytes, int64_t index) {
  float value;
  std::memcpy(&value, bytes + static_cast<size_t>(index) * sizeof(float), sizeof(float));
  return value;
}

// Panels of at most `widest` vectors; no panel of one vector where two of fewer can share.
std::vector<GemmPanel> PlanPanels(const MatrixSource& source, int lanes, int widest) {
  std::vector<GemmPanel> panels;
  size_t offset = 0;
  for (int64_t g = 0; g < source.groups; ++g) {
    int64_t column = 0;
    while (column < source.columns) {
      const int64_t left = source.columns - column;
      const int64_t vectors_left = (left + lanes - 1) / lanes;
      int vectors = static_cast<int>(std::min<int64_t>(vectors_left, widest));
      if (widest > 2 && vectors_left == widest + 1) vectors = widest - 1;
      const int64_t width = std::min<int64_t>(left, int64_t{vectors} * lanes);
      GemmPanel panel;
      panel.column = g * source.columns + column;
      panel.group = g;
      panel.vectors = vectors;
      panel.last = static_cast<int>(width - int64_t{vectors - 1} * lanes);
      panel.offset = offset;
      panels.push_back(panel);
      offset += static_cast<size_t>((source.depth() + 1) * vectors * lanes);
      offset = (offset + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
      column += width;
    }
  }
  return panels;
}

void PackPanel(const MatrixSource& source, const GemmPanel& panel, int lanes, float* dst) {
  const int64_t width = int64_t{panel.vectors} * lanes;
  const int64_t columns = width - lanes + panel.last;
  for (int64_t j = 0; j < width; ++j) {
    float bias = 0;
    if (source.bias != nullptr && j < columns) {
      bias = source.bias_scale * ReadFloat(source.bias->bytes(), source.bias->size() == 1 ? 0 : panel.column + j);
    }
    dst[j] = bias;
  }
  dst += width;
  // Blocks of 16 channels keep both sides in L1 whatever the strides.
  constexpr int64_t kBlock = 16;
  const int64_t first = panel.group * source.group_stride +
                        (panel.column - panel.group * source.columns) * source.column_stride;
  for (int64_t c0 = 0; c0 < source.channels; c0 += kBlock) {
    const int64_t c1 = std::min(c0 + kBlock, source.channels);
    for (int64_t j = 0; j < width; ++j) {
      for (int64_t tap = 0; tap < source.taps; ++tap) {
        float* to = dst + (tap * source.channels) * width + j;
        const int64_t from = first + j * source.column_stride + tap * source.tap_stride;
        for (int64_t c = c0; c < c1; ++c) {
          to[c * width] =
              j < columns ? source.scale * ReadFloat(source.values->bytes(), from + c * source.channel_stride) : 0;
        }
      }
    }
  }
}

std::string Key(const MatrixSource& source, int lanes, int vectors) {
  std::string key = "gemm";
  const auto add = [&key](auto value) { key += ' ' + std::to_string(value); };
  add(reinterpret_cast<uintptr_t>(source.values->bytes()));
  add(source.bias == nullptr ? 0 : reinterpret_cast<uintptr_t>(source.bias->bytes()));
  for (const float scale : {source.scale, source.bias_scale}) add(scale);
  for (const int64_t value : {source.groups, source.columns, source.taps, source.channels, source.group_stride,
                              source.column_stride, source.tap_stride, source.channel_stride}) {
    add(value);
  }
  add(lanes);
  add(vectors);
  return key;
}

}  // namespace

FloatBuffer::FloatBuffer(size_t count)
    : data_(static_cast<float*>(
          std::aligned_alloc(kAlignment, (count * sizeof(float) + kAlignment) / kAlignment * kAlignment))) {}

void FloatBuffer::Free::operator()(float* data) const { std::free(data); }

Result<std::shared_ptr<const PackedGemm>> PackGemm(const MatrixSource& source, const GemmOps& ops, int vectors,
                                                   PackCache* cache, Executor* executor) {
  const auto make = [&]() -> PackCache::Packed {
    std::vector<GemmPanel> panels = PlanPanels(source, ops.lanes, vectors);
    const GemmPanel& end = panels.back();
    const size_t count = end.offset + static_cast<size_t>((source.depth() + 1) * end.vectors * ops.lanes);
    auto packed = std::make_shared<PackedGemm>(std::move(panels), count);
    if (packed->values.data() == nullptr) return nullptr;
    SerialExecutor serial;
    Executor& on = executor == nullptr ? serial : *executor;
    on.ParallelFor(static_cast<int64_t>(packed->panels.size()), [&](int64_t begin, int64_t end_panel, int) {
      for (int64_t i = begin; i < end_panel; ++i) {
        const GemmPanel& panel = packed->panels[static_cast<size_t>(i)];
        PackPanel(source, panel, ops.lanes, packed->values.data() + panel.offset);
      }
    });
    return packed;
  };
  const PackCache::Packed packed = cache == nullptr ? make() : cache->GetOrMake(Key(source, ops.lanes, vectors), make);
  if (packed == nullptr) return Error{ErrorCode::kOutOfMemory, "no memory for packed weights", ""};
  return std::static_pointer_cast<const PackedGemm>(packed);
}

}  // namespace crease
