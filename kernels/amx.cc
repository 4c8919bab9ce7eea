// SPDX-License-Identifier: Apache-2.0
// Intrinsics, not Highway, which has no tiles.
#include "kernels/amx.h"

#include "kernels/rounding.h"
#include "kernels/targets.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define CREASE_AMX 1
#else
#define CREASE_AMX 0
#endif

namespace crease {
namespace {

// Nanoseconds of one core, hot: products of whole tiles by AMX, a number's digits, a result; and products of vectors.
constexpr double kTileNs = 2.6e-3, kDigitsNs = 0.2, kResultNs = 0.09, kVectorNs = 15.4e-3;
// Sums of three products of digits stay within 32 bits.
constexpr int64_t kMostChannels = int64_t{1} << 15;

double Padded(int64_t value, int64_t unit) { return static_cast<double>(RoundUp(value, unit)); }

}  // namespace

double AmxNanoseconds(int64_t rows, int64_t channels, int64_t columns) {
  const double depth = Padded(channels, kAmxDepth), width = Padded(columns, kAmxColumns);
  return Padded(rows, kAmxRows) * depth * width * kTileNs +
         static_cast<double>(rows) * (depth * kDigitsNs + width * kResultNs);
}

double VectorNanoseconds(int64_t rows, int64_t channels, int64_t columns) {
  return static_cast<double>(rows) * static_cast<double>(channels) * static_cast<double>(columns) * kVectorNs;
}

bool AmxPays(int64_t rows, int64_t channels, int64_t columns, double gain) {
  return channels <= kMostChannels &&
         AmxNanoseconds(rows, channels, columns) * gain < VectorNanoseconds(rows, channels, columns);
}

}  // namespace crease

#if CREASE_AMX

// GCC 12's own header trips it.
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>

#define CREASE_AMX_ATTR __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq")))

namespace crease {
namespace {

constexpr int64_t kTileBytes = kAmxRows * 64;
constexpr int64_t kLanes = 16;
// The largest integer of three digits is 127 * 2^16 + 127 * 2^8 + 127; less some, for the rounding of what is scaled to
// it.
constexpr float kLargest = 8355711 - 63;
// A row or column below it counts as that large: its scale's inverse stays finite.
constexpr float kSmallest = 0x1p-100f;
constexpr int32_t kInfinityBits = 0x7f800000;

struct Digits {
  __m512i d[kAmxDigits];
};

// Integers of 24 bits; byte i of each lane of a digit is q[i]'s.
CREASE_AMX_ATTR inline Digits DigitsOf(const __m512i (&q)[4]) {
  // A digit is its byte of q + 0x808080 less 128.
  const __m512i offset = _mm512_set1_epi32(0x808080), sign = _mm512_set1_epi8(static_cast<char>(0x80));
  const __m512i odd = _mm512_set1_epi32(0x00ff00ff), low_half = _mm512_set1_epi32(0x0000ffff);
  __m512i t[4];
  for (int i = 0; i < 4; ++i) t[i] = _mm512_add_epi32(q[i], offset);
  // 0xca: the first where the mask is set, else the second.
  const auto select = [&](__m512i mask, __m512i x, __m512i y)
                          CREASE_AMX_ATTR { return _mm512_ternarylogic_epi32(mask, x, y, 0xca); };
  // Bytes 0 and 2, and bytes 1 and 3, of t[0] and t[1], and of t[2] and t[3].
  const __m512i even01 = select(odd, t[0], _mm512_slli_epi32(t[1], 8));
  const __m512i even23 = select(odd, t[2], _mm512_slli_epi32(t[3], 8));
  const __m512i odd01 = select(odd, _mm512_srli_epi32(t[0], 8), t[1]);
  const __m512i odd23 = select(odd, _mm512_srli_epi32(t[2], 8), t[3]);
  Digits digits;
  digits.d[0] = select(low_half, _mm512_srli_epi32(even01, 16), even23);
  digits.d[1] = select(low_half, odd01, _mm512_slli_epi32(odd23, 16));
  digits.d[2] = select(low_half, even01, _mm512_slli_epi32(even23, 16));
  for (__m512i& d : digits.d) d = _mm512_xor_si512(d, sign);
  return digits;
}

CREASE_AMX_ATTR inline __m512i Magnitude(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}

CREASE_AMX_ATTR inline __mmask16 MaskOf(int64_t left) {
  return static_cast<__mmask16>(left >= kLanes ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
}

// Four vectors of a row, balanced, from channel c on; kTail: of the channels that there are.
template <bool kTail>
CREASE_AMX_ATTR inline void LoadBalanced(const float* src, const float* balance, int64_t c, int64_t channels,
                                         __m512 (&x)[4]) {
  for (int i = 0; i < 4; ++i) {
    const int64_t at = c + i * kLanes;
    if constexpr (kTail) {
      const __mmask16 mask = MaskOf(channels - at);
      x[i] = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, src + at), _mm512_maskz_loadu_ps(mask, balance + at));
    } else {
      x[i] = _mm512_mul_ps(_mm512_loadu_ps(src + at), _mm512_loadu_ps(balance + at));
    }
  }
}

// A chunk's digits; zeros where nothing is finite.
CREASE_AMX_ATTR inline void StoreChunk(const __m512 (&x)[4], __m512 inverse, __mmask16 finite, float* to) {
  __m512i q[4];
  for (int i = 0; i < 4; ++i) q[i] = _mm512_maskz_cvtps_epi32(finite, _mm512_mul_ps(x[i], inverse));
  const Digits digits = DigitsOf(q);
  for (int d = 0; d < kAmxDigits; ++d) _mm512_store_si512(to + d * kLanes, digits.d[d]);
}

CREASE_AMX_ATTR __attribute__((noinline)) void PackRows(const float* src, int64_t src_stride, int64_t count,
                                                        int64_t channels, const float* balance, float* dst,
                                                        int64_t dst_stride, float* row_scale) {
  const int64_t whole = channels / kAmxDepth * kAmxDepth;
  for (int64_t r = 0; r < count; ++r, src += src_stride, dst += dst_stride) {
    // The row after the next.
    for (int64_t c = 0; c < channels; c += kLanes) __builtin_prefetch(src + 2 * src_stride + c);
    __m512i largest[4] = {};
    __m512 x[4];
    const auto compare = [&]() CREASE_AMX_ATTR {
      for (int i = 0; i < 4; ++i) largest[i] = _mm512_max_epi32(largest[i], Magnitude(x[i]));
    };
    for (int64_t c = 0; c < whole; c += kAmxDepth) {
      LoadBalanced<false>(src, balance, c, channels, x);
      compare();
    }
    if (whole < channels) {
      LoadBalanced<true>(src, balance, whole, channels, x);
      compare();
    }
    const __m512i larger =
        _mm512_max_epi32(_mm512_max_epi32(largest[0], largest[1]), _mm512_max_epi32(largest[2], largest[3]));
    const int32_t bits = _mm512_reduce_max_epi32(larger);
    const bool is_finite = bits < kInfinityBits;
    const __mmask16 finite = is_finite ? 0xffff : 0;
    const float most = std::max(std::bit_cast<float>(bits), kSmallest);
    row_scale[r] = is_finite ? most * (1 / kLargest) : std::numeric_limits<float>::quiet_NaN();
    const __m512 inverse = _mm512_set1_ps(kLargest / most);
    float* to = dst;
    for (int64_t c = 0; c < whole; c += kAmxDepth, to += kAmxChunkFloats) {
      LoadBalanced<false>(src, balance, c, channels, x);
      StoreChunk(x, inverse, finite, to);
    }
    if (whole < channels) {
      LoadBalanced<true>(src, balance, whole, channels, x);
      StoreChunk(x, inverse, finite, to);
    }
  }
}

// Byte i of lane p of a line of a is channel 16 * i + p; so line p of a tile of b has four channels of 16 columns.
CREASE_AMX_ATTR void PackColumns(float* b, int64_t rows, int64_t width, const float* balance, float* column_scale,
                                 float* dst) {
  const int64_t tiles = width / kAmxColumns;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    float* from = b + tile * kAmxColumns;
    __m512i largest = _mm512_castps_si512(_mm512_set1_ps(kSmallest));
    for (int64_t k = 0; k < rows; ++k) {
      const __m512 x = balance[k] == 0
                           ? _mm512_setzero_ps()
                           : _mm512_mul_ps(_mm512_loadu_ps(from + k * width), _mm512_set1_ps(1 / balance[k]));
      _mm512_storeu_ps(from + k * width, x);
      largest = _mm512_max_epi32(largest, Magnitude(x));
    }
    const __mmask16 finite = _mm512_cmplt_epi32_mask(largest, _mm512_set1_epi32(kInfinityBits));
    const __m512 most = _mm512_castsi512_ps(largest), limit = _mm512_set1_ps(kLargest);
    const __m512 nan = _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN());
    _mm512_store_ps(column_scale + tile * kAmxColumns, _mm512_mask_div_ps(nan, finite, most, limit));
    const __m512 inverse = _mm512_div_ps(limit, most);
    for (int64_t k = 0; k < rows; k += kAmxDepth) {
      float* chunk = dst + (k / kAmxDepth * kAmxDigits * tiles + tile) * (kTileBytes / 4);
      for (int64_t p = 0; p < kAmxRows; ++p) {
        __m512i q[4];
        for (int i = 0; i < 4; ++i) {
          const int64_t row = k + 16 * i + p;
          q[i] = _mm512_setzero_si512();
          if (row >= rows) continue;
          q[i] = _mm512_maskz_cvtps_epi32(finite, _mm512_mul_ps(_mm512_loadu_ps(from + row * width), inverse));
        }
        const Digits digits = DigitsOf(q);
        for (int d = 0; d < kAmxDigits; ++d) {
          _mm512_store_si512(chunk + d * tiles * (kTileBytes / 4) + p * kLanes, digits.d[d]);
        }
      }
    }
  }
}

CREASE_AMX_ATTR void Largest(const float* row, int64_t count, float* largest) {
  for (int64_t k = 0; k < count; k += kLanes) {
    const __mmask16 mask = MaskOf(count - k);
    __m512i x = Magnitude(_mm512_maskz_loadu_ps(mask, row + k));
    x = _mm512_maskz_mov_epi32(_mm512_cmplt_epi32_mask(x, _mm512_set1_epi32(kInfinityBits)), x);
    const __m512i seen = _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, largest + k));
    _mm512_mask_storeu_ps(largest + k, mask, _mm512_castsi512_ps(_mm512_max_epi32(x, seen)));
  }
}

// kPlain: without residual and bounds.
template <bool kResidual, bool kPlain = false>
CREASE_AMX_ATTR __attribute__((noinline)) void WriteResult(const AmxResult& result) {
  const AmxResult t = result;  // stores may alias its fields
  const __m512 lo = _mm512_set1_ps(t.lo), hi = _mm512_set1_ps(t.hi);
  const __m512 digit = _mm512_set1_ps(0x1p-8f), weight = _mm512_set1_ps(0x1p32f);
  const __m512i half = _mm512_set1_epi32(128);
  for (int64_t j = 0; j < t.out.columns; j += kLanes) {
    const __mmask16 mask = MaskOf(t.out.columns - j);
    const __m512 scale = _mm512_mul_ps(_mm512_load_ps(t.column_scale + j), weight);
    const __m512 bias = _mm512_load_ps(t.bias + j);
    const int32_t* sums = t.sums + j;
    const float* residual = kResidual ? t.out.residual + j : nullptr;
    float* dst = t.out.dst + j;
    for (int64_t r = 0; r < t.out.rows; ++r, sums += t.width, dst += t.out.dst_stride) {
      const __m512i third = _mm512_srai_epi32(_mm512_add_epi32(_mm512_load_si512(sums + 2 * kAmxTileSums), half), 8);
      const __m512i second = _mm512_add_epi32(_mm512_load_si512(sums + kAmxTileSums), third);
      const __m512 sum =
          _mm512_fmadd_ps(_mm512_cvtepi32_ps(second), digit, _mm512_cvtepi32_ps(_mm512_load_si512(sums)));
      __m512 y = _mm512_fmadd_ps(_mm512_mul_ps(sum, scale), _mm512_set1_ps(t.row_scale[r]), bias);
      if constexpr (!kPlain) {
        __m512 added = _mm512_setzero_ps();
        if constexpr (kResidual) {
          added = _mm512_maskz_loadu_ps(mask, residual);
          residual += t.out.residual_stride;
          if (!t.residual_last) y = _mm512_add_ps(y, added);
        }
        // Bounds first: they let NaN through.
        y = _mm512_min_ps(hi, _mm512_max_ps(lo, y));
        if (kResidual && t.residual_last) y = _mm512_add_ps(y, added);
      }
      _mm512_mask_storeu_ps(dst, mask, y);
    }
  }
}

void Write(const AmxResult& result) {
  if (result.out.residual != nullptr) return WriteResult<true>(result);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool plain = result.lo == -kInfinity && result.hi == kInfinity;
  plain ? WriteResult<false, true>(result) : WriteResult<false>(result);
}

inline void FetchAhead(const float*& ahead, int64_t lines) {
  if (ahead == nullptr) return;
  for (; lines > 0; --lines, ahead += kLanes) __builtin_prefetch(ahead, 0, 2);
}

// Tiles 0 and 1 hold sums of the first weight, 2 and 3 of the second, 4 and 5 of the third; 6 a's digit, 7 b's. From
// one product to the next one of the two stays, and no sum waits for one of the last three products, as long as one
// takes.
CREASE_AMX_ATTR __attribute__((noinline)) void RunWide(const AmxTile& t) {
  const int64_t stride = t.row_stride * static_cast<int64_t>(sizeof(float));
  const char* a = reinterpret_cast<const char*>(t.a);
  const char* b = reinterpret_cast<const char*>(t.b);
  const float* ahead = t.ahead;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t k = 0; k < t.chunks; ++k, a += kAmxDigits * 64, b += 2 * kAmxDigits * kTileBytes) {
    _tile_loadd(6, a, stride);
    _tile_loadd(7, b + 4 * kTileBytes, 64);
    _tile_dpbssd(4, 6, 7);
    _tile_loadd(7, b + 5 * kTileBytes, 64);
    _tile_dpbssd(5, 6, 7);
    _tile_loadd(7, b + 3 * kTileBytes, 64);
    _tile_dpbssd(3, 6, 7);
    _tile_loadd(7, b + 2 * kTileBytes, 64);
    _tile_dpbssd(2, 6, 7);
    _tile_loadd(6, a + 64, stride);
    _tile_dpbssd(4, 6, 7);
    _tile_loadd(7, b + 3 * kTileBytes, 64);
    _tile_dpbssd(5, 6, 7);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_dpbssd(3, 6, 7);
    _tile_loadd(7, b, 64);
    _tile_dpbssd(2, 6, 7);
    _tile_loadd(6, a + 128, stride);
    _tile_dpbssd(4, 6, 7);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_dpbssd(5, 6, 7);
    _tile_loadd(6, a, stride);
    _tile_dpbssd(1, 6, 7);
    _tile_loadd(7, b, 64);
    _tile_dpbssd(0, 6, 7);
    FetchAhead(ahead, t.ahead_lines);
  }
  constexpr int64_t kWidth = 2 * kAmxColumns * sizeof(int32_t);
  _tile_stored(0, t.sums, kWidth);
  _tile_stored(1, t.sums + kAmxColumns, kWidth);
  _tile_stored(2, t.sums + kAmxTileSums, kWidth);
  _tile_stored(3, t.sums + kAmxTileSums + kAmxColumns, kWidth);
  _tile_stored(4, t.sums + 2 * kAmxTileSums, kWidth);
  _tile_stored(5, t.sums + 2 * kAmxTileSums + kAmxColumns, kWidth);
}

// The same for two tiles of rows and one of columns.
CREASE_AMX_ATTR __attribute__((noinline)) void RunTall(const AmxTile& t) {
  const int64_t stride = t.row_stride * static_cast<int64_t>(sizeof(float));
  const char* a0 = reinterpret_cast<const char*>(t.a);
  const char* a1 = reinterpret_cast<const char*>(t.a + kAmxRows * t.row_stride);
  const char* b = reinterpret_cast<const char*>(t.b);
  const float* ahead = t.ahead;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int64_t k = 0; k < t.chunks; ++k, b += kAmxDigits * kTileBytes) {
    _tile_loadd(7, b, 64);
    _tile_loadd(6, a0 + 128, stride);
    _tile_dpbssd(4, 6, 7);
    _tile_loadd(6, a1 + 128, stride);
    _tile_dpbssd(5, 6, 7);
    _tile_loadd(6, a1 + 64, stride);
    _tile_dpbssd(3, 6, 7);
    _tile_loadd(6, a0 + 64, stride);
    _tile_dpbssd(2, 6, 7);
    _tile_loadd(7, b + kTileBytes, 64);
    _tile_dpbssd(4, 6, 7);
    _tile_loadd(6, a1 + 64, stride);
    _tile_dpbssd(5, 6, 7);
    _tile_loadd(6, a1, stride);
    _tile_dpbssd(3, 6, 7);
    _tile_loadd(6, a0, stride);
    _tile_dpbssd(2, 6, 7);
    _tile_loadd(7, b + 2 * kTileBytes, 64);
    _tile_dpbssd(4, 6, 7);
    _tile_loadd(6, a1, stride);
    _tile_dpbssd(5, 6, 7);
    _tile_loadd(7, b, 64);
    _tile_dpbssd(1, 6, 7);
    _tile_loadd(6, a0, stride);
    _tile_dpbssd(0, 6, 7);
    a0 += kAmxDigits * 64;
    a1 += kAmxDigits * 64;
    FetchAhead(ahead, t.ahead_lines);
  }
  constexpr int64_t kTile = kAmxRows * kAmxColumns;
  _tile_stored(0, t.sums, 64);
  _tile_stored(1, t.sums + kTile, 64);
  _tile_stored(2, t.sums + kAmxTileSums, 64);
  _tile_stored(3, t.sums + kAmxTileSums + kTile, 64);
  _tile_stored(4, t.sums + 2 * kAmxTileSums, 64);
  _tile_stored(5, t.sums + 2 * kAmxTileSums + kTile, 64);
}

// CPUID leaf 7: AMX-TILE and AMX-INT8.
bool CpuHasTiles() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  asm volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(7), "c"(0));
  return (d >> 24 & 1) != 0 && (d >> 25 & 1) != 0;
}

// Linux gives a process the tiles' 8 KiB of state when it asks for them.
bool AskSystem() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

constexpr AmxOps kOps = {
    {0, 2 * kAmxRows, kAmxRows}, {nullptr, &RunTall, &RunWide}, &Write, &PackRows, &PackColumns, &Largest};

// What LDTILECFG reads: palette 1, then bytes a row and rows by tile. Constant: GCC 12 takes it that the intrinsic
// reads 8 bytes, and leaves out what a function writes to the others.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {kAmxRows, kAmxRows, kAmxRows, kAmxRows, kAmxRows, kAmxRows, kAmxRows, kAmxRows};
};
static_assert(sizeof(TileConfig) == 64);
constexpr TileConfig kTileConfig;

CREASE_AMX_ATTR void Configure() { _tile_loadconfig(&kTileConfig); }

CREASE_AMX_ATTR void Release() { _tile_release(); }

}  // namespace

const AmxOps* GetAmxOps() {
  if (!MayUseAmx()) return nullptr;
  static const bool usable = CpuHasTiles() && AskSystem();
  return usable ? &kOps : nullptr;
}

AmxScope::AmxScope(bool wanted) : wanted_(wanted) {
  if (wanted_) Configure();
}

AmxScope::~AmxScope() {
  if (wanted_) Release();
}

}  // namespace crease

#else

namespace crease {

const AmxOps* GetAmxOps() { return nullptr; }
AmxScope::AmxScope(bool wanted) : wanted_(wanted) {}
AmxScope::~AmxScope() = default;

}  // namespace crease

#endif
