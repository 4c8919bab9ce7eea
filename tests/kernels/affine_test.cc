// SPDX-License-Identifier: Apache-2.0
// Batch-norm at inference: y = scale * x + shift. Bound: two roundings of the larger term, that of
// scale and shift, and the activation's own.
#include <numeric>
#include <type_traits>

#include "kernels/affine_rows.h"
#include "kernels/targets.h"
#include "tests/kernels/kernel_test_util.h"

namespace crease::test {
namespace {

KernelCase BatchNorm(const Shape& shape) {
  KernelCase c;
  c.node = MakeNode("BatchNormalization", {MakeAttr("epsilon", 1e-5f)});
  const Shape channels = {shape[1]};
  c.inputs = {RandomTensor(shape, 1), RandomTensor(channels, 2, 0.5f, 2), RandomTensor(channels, 3),
              RandomTensor(channels, 4), RandomTensor(channels, 5, 0.1f, 4)};
  c.constant = {false, true, true, true, true};
  c.absolute = 6e-6;  // |scale| <= 6.3 times |x - mean| <= 6, in ulps of 40
  return c;
}

TEST(Affine, AwkwardSizes) {
  for (const int64_t channels : {1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 48, 67}) {
    for (const Shape& space : {Shape{}, Shape{1}, Shape{5}, Shape{1, 1}, Shape{7, 7}, Shape{3, 11}, Shape{2, 3, 5}}) {
      Shape shape = {2, channels};
      shape.insert(shape.end(), space.begin(), space.end());
      CheckLayouts(BatchNorm(shape), "affine");
    }
  }
  CheckLayouts(BatchNorm({0, 5, 3, 3}), "affine");
  CheckLayouts(BatchNorm({2, 5, 0, 3}), "affine");
}

TEST(Affine, EveryEpilogue) {
  for (int a = 0; a <= static_cast<int>(Activation::kMish); ++a) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      KernelCase c = BatchNorm({2, 19, 5, 3});
      c.epilogue = {static_cast<Activation>(a), 0.1f, 0.6f, residual};
      if (residual != Residual::kNone) c.residual = RandomTensor({2, 19, 5, 3}, 6);
      c.relative = 1e-6;
      c.absolute = 1e-5;
      const std::string refusal = Refusal(c, "affine");
      const bool rare = a >= static_cast<int>(Activation::kHardSigmoid) && c.epilogue.activation != Activation::kSilu;
      EXPECT_EQ(refusal, rare && residual != Residual::kNone ? "this activation with a residual" : "");
      if (!refusal.empty()) continue;
      CheckLayouts(c, "affine");
      c.in_place = true;
      CheckLayouts(c, "affine");
    }
  }
}

TEST(Affine, LargeTensorsOnThreads) {
  CheckLayouts(BatchNorm({2, 3, 83, 91}), "affine");
  CheckLayouts(BatchNorm({1, 130, 17, 13}), "affine");
  CheckLayouts(BatchNorm({33, 700}), "affine");
}

// The ways in which a kernel may be told to write.
struct Writes {
  const char* name;
  bool stream, fetch, fetch_source, past_l2;
  Walk walk;
  void To(AffineArgs& args) const {
    args.stream = stream;
    args.fetch = fetch;
    args.fetch_source = fetch_source;
    args.past_l2 = past_l2;
    args.walk = walk;
  }
};
constexpr Writes kWrites[] = {{"plain", false, false, false, false, Walk::kOrder},
                              {"past L2", false, false, false, true, Walk::kOrder},
                              {"fetched", false, true, true, true, Walk::kOrder},
                              {"past the caches", true, true, true, true, Walk::kOrder},
                              {"plain in pages", false, false, false, false, Walk::kPages},
                              {"fetched in pages", false, true, true, true, Walk::kPages},
                              {"past the caches in pages", true, true, true, true, Walk::kPages}};

// `count` random elements and parameters of `channels`, and storage for two results to compare, aligned as tensors are,
// so that lines can be written past the caches. T: of the dtype's size.
template <typename T>
class MapBuffers {
 public:
  using Parameter = std::conditional_t<sizeof(T) == sizeof(double), double, float>;

  MapBuffers(DType dtype, int64_t count, int64_t channels)
      : x_(RandomTensor({count + kPage}, 1).ConvertedTo(dtype).value()),
        scale_(Parameters(channels, 2)),
        shift_(Parameters(channels, 3)),
        pivot_(Parameters(channels, 4)),
        want_(Tensor::Allocate(dtype, {count}).value()),
        got_(Tensor::Allocate(dtype, {count}).value()) {}

  T* want() { return reinterpret_cast<T*>(want_.mutable_data<std::byte>()); }
  T* got() { return reinterpret_cast<T*>(got_.mutable_data<std::byte>()); }
  // `ahead`: bytes by which dst lies after the source, but for whole pages; -1 for any.
  AffineArgs ArgsTo(T* dst, int64_t ahead = -1) const {
    AffineArgs args;
    args.src = x_.bytes();
    if (ahead >= 0) {
      const auto from = reinterpret_cast<uintptr_t>(x_.bytes());
      args.src = x_.bytes() + (reinterpret_cast<uintptr_t>(dst) - static_cast<uintptr_t>(ahead) - from) % kPage;
    }
    args.dst = dst;
    args.scale = scale_.bytes();
    args.shift = shift_.bytes();
    args.pivot = pivot_.bytes();
    return args;
  }

  // In place: the source's elements where the results go.
  AffineArgs ArgsIn(T* memory, int64_t count) const {
    AffineArgs args = ArgsTo(memory);
    std::memcpy(memory, x_.bytes(), static_cast<size_t>(count) * sizeof(T));
    args.src = memory;
    return args;
  }
  // Copies the parameters to where args.dst lies `behind` bytes behind the shifts, but for whole pages.
  void PutParameters(int64_t behind, AffineArgs* args) {
    const int64_t channels = scale_.size();
    room_.assign(static_cast<size_t>(3 * channels + kPage), 0);
    const auto shift = reinterpret_cast<uintptr_t>(room_.data() + channels);
    const auto to = (reinterpret_cast<uintptr_t>(args->dst) - static_cast<uintptr_t>(behind) - shift) % kPage;
    Parameter* at = room_.data() + to / sizeof(Parameter);
    for (const void** of : {&args->scale, &args->shift, &args->pivot}) {
      std::copy_n(static_cast<const Parameter*>(*of), channels, at);
      *of = at;
      at += channels;
    }
  }
  // Makes the parameters those of `cycle` channels again and again.
  void RepeatParameters(int64_t cycle) {
    for (Tensor* of : {&scale_, &shift_, &pivot_}) {
      auto* values = of->mutable_data<float>();
      for (int64_t i = cycle; i < of->size(); ++i) values[i] = values[i - cycle];
    }
  }

 private:
  static Tensor Parameters(int64_t channels, uint32_t seed) {
    const DType dtype = sizeof(Parameter) == sizeof(double) ? DType::kFloat64 : DType::kFloat32;
    return RandomTensor({channels}, seed).ConvertedTo(dtype).value();
  }

  static constexpr int64_t kPage = 4096;
  Tensor x_, scale_, shift_, pivot_, want_, got_;
  std::vector<Parameter> room_;
};

// Elements [begin, end) of planes mapped in one go, in every way of writing, and those around them left alone; the
// same bits as plane by plane.
template <typename T>
void CheckRanges(DType dtype, int64_t plane) {
  constexpr int64_t kChannels = 3, kImages = 3;
  constexpr T kUntouched = 77;
  const int64_t count = kImages * kChannels * plane;
  MapBuffers<T> buffers(dtype, count, kChannels);
  T *want = buffers.want(), *got = buffers.got();
  ForEachTarget([&](const char* target) {
    const AffinePlanes rows = FindExactRows(dtype, Activation::kNone, Residual::kNone).planes;
    for (const int64_t ahead : {-1, 0, 64, 192}) {
      AffineArgs args = buffers.ArgsTo(got, ahead);
      args.dst = want;
      for (int64_t i = 0; i < count; i += plane) rows(args, kChannels, plane, i, i + plane);
      args.dst = got;
      for (const Writes& writes : kWrites) {
        writes.To(args);
        for (const int64_t begin : {int64_t{0}, int64_t{13}, plane + 1}) {
          for (const int64_t end : {count, count - 7, std::min(count, begin + 5)}) {
            if (begin >= end) continue;
            std::fill_n(got, count, kUntouched);
            rows(args, kChannels, plane, begin, end);
            for (int64_t i = 0; i < count; ++i) {
              ASSERT_EQ(got[i], i < begin || i >= end ? kUntouched : want[i])
                  << target << " " << Name(dtype) << " plane " << plane << " " << writes.name << ", " << ahead
                  << " bytes ahead, [" << begin << ", " << end << ") at " << i;
            }
          }
        }
      }
    }
  });
}

AffinePixels ExactPixels(DType dtype) { return FindExactRows(dtype, Activation::kNone, Residual::kNone).pixels; }
AffinePixels PlainPixels(DType /*float32*/) { return FindAffineRows(Activation::kNone, Residual::kNone).pixels; }

// Rows [1, rows - 1) of channels-last memory with pitches, written in every way, and what is around them left alone;
// the same bits as row by row.
template <typename T>
void CheckPixelRows(DType dtype, int64_t channels, int64_t pitch, int64_t dst_pitch,
                    AffinePixels (*find)(DType) = ExactPixels) {
  constexpr int64_t kRows = 25;
  constexpr T kUntouched = 77;
  const int64_t count = kRows * std::max(pitch, dst_pitch);
  MapBuffers<T> buffers(dtype, count, channels);
  T *want = buffers.want(), *got = buffers.got();
  ForEachTarget([&](const char* target) {
    const AffinePixels rows = find(dtype);
    const AffinePitches pitches = {pitch, pitch, dst_pitch};
    AffineArgs args;
    // The last one's results are what is to come out in place.
    for (const int64_t ahead : {64, 128, 0, -1}) {
      args = buffers.ArgsTo(got, ahead);
      args.dst = want;
      std::fill_n(want, count, kUntouched);
      for (int64_t row = 1; row < kRows - 1; ++row) rows(args, channels, pitches, row, row + 1);
      args.dst = got;
      for (const Writes& writes : kWrites) {
        writes.To(args);
        std::fill_n(got, count, kUntouched);
        rows(args, channels, pitches, 1, kRows - 1);
        ASSERT_EQ(std::memcmp(got, want, static_cast<size_t>(count) * sizeof(T)), 0)
            << target << " " << Name(dtype) << " channels " << channels << " pitches " << pitch << " and " << dst_pitch
            << " " << writes.name << ", " << ahead << " bytes ahead";
      }
      for (const int64_t behind : {0, 64, 1000, 3600, 4032}) {
        for (const Writes* writes : {&kWrites[0], &kWrites[1]}) {
          AffineArgs placed = args;
          writes->To(placed);
          buffers.PutParameters(behind, &placed);
          std::fill_n(got, count, kUntouched);
          rows(placed, channels, pitches, 1, kRows - 1);
          ASSERT_EQ(std::memcmp(got, want, static_cast<size_t>(count) * sizeof(T)), 0)
              << target << " " << Name(dtype) << " channels " << channels << " pitches " << pitch << " and "
              << dst_pitch << " " << writes->name << ", " << ahead << " bytes ahead, parameters " << behind
              << " bytes before";
        }
      }
    }
    if (pitch != dst_pitch) return;
    // In place; what lies around the rows is the source's there.
    for (const Writes& writes : kWrites) {
      args = buffers.ArgsIn(got, count);
      writes.To(args);
      rows(args, channels, pitches, 1, kRows - 1);
      for (int64_t row = 1; row < kRows - 1; ++row) {
        ASSERT_EQ(std::memcmp(got + row * pitch, want + row * pitch, static_cast<size_t>(channels) * sizeof(T)), 0)
            << target << " " << Name(dtype) << " channels " << channels << " pitch " << pitch << " " << writes.name
            << ", in place, row " << row;
      }
    }
  });
}

TEST(Affine, PixelsInEveryWay) {
  // Rows that lie alike in their pages, too.
  for (const int64_t channels : {1, 3, 8, 15, 16, 17, 24, 64, 67, 512, 640, 1100, 1280, 2048}) {
    for (const int64_t pitch : {channels, channels + 5, (channels + 31) / 16 * 16, (channels + 1023) / 1024 * 1024}) {
      for (const int64_t dst_pitch : {pitch, pitch + 16}) {
        CheckPixelRows<float>(DType::kFloat32, channels, pitch, dst_pitch);
        CheckPixelRows<float>(DType::kFloat32, channels, pitch, dst_pitch, PlainPixels);
        CheckPixelRows<double>(DType::kFloat64, channels, pitch, dst_pitch);
        CheckPixelRows<uint16_t>(DType::kBFloat16, channels, pitch, dst_pitch);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

// Dense rows of a period, whose parameters repeat after fewer columns: as if they did not.
template <typename T>
void CheckCycles(DType dtype, int64_t cycle, int64_t period) {
  constexpr int64_t kRows = 9;
  const int64_t count = kRows * period;
  MapBuffers<T> buffers(dtype, count, period);
  T *want = buffers.want(), *got = buffers.got();
  buffers.RepeatParameters(cycle);
  ForEachTarget([&](const char* target) {
    const AffinePixels rows = FindExactRows(dtype, Activation::kNone, Residual::kNone).pixels;
    const AffinePitches pitches = {period, period, period};
    for (const int64_t ahead : {-1, 0, 64, 192}) {
      AffineArgs args = buffers.ArgsTo(got, ahead);
      args.dst = want;
      rows(args, period, pitches, 0, kRows);
      args.dst = got;
      args.cycle = cycle;
      for (const Writes& writes : kWrites) {
        writes.To(args);
        std::fill_n(got, count, T{0});
        rows(args, period, pitches, 0, 2);
        rows(args, period, pitches, 2, kRows);
        ASSERT_EQ(std::memcmp(got, want, static_cast<size_t>(count) * sizeof(T)), 0)
            << target << " " << Name(dtype) << " cycle " << cycle << " " << writes.name << ", " << ahead
            << " bytes ahead";
      }
    }
    AffineArgs args = buffers.ArgsTo(want);
    rows(args, period, pitches, 0, kRows);
    for (const Writes& writes : kWrites) {
      args = buffers.ArgsIn(got, count);
      writes.To(args);
      args.cycle = cycle;
      rows(args, period, pitches, 0, kRows);
      ASSERT_EQ(std::memcmp(got, want, static_cast<size_t>(count) * sizeof(T)), 0)
          << target << " " << Name(dtype) << " cycle " << cycle << " " << writes.name << ", in place";
    }
  });
}

TEST(Affine, ParametersThatRepeat) {
  for (const int64_t cycle : {1, 3, 8, 16, 24, 40, 48, 64, 96, 112, 128, 144, 200}) {
    const int64_t period = std::lcm(cycle, int64_t{16}) * 2;
    CheckCycles<float>(DType::kFloat32, cycle, period);
    CheckCycles<uint16_t>(DType::kBFloat16, cycle, period);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(Affine, RangesOfPlanesPastTheCaches) {
  for (const int64_t plane : {2, 9, 16, 17, 49, 64, 100, 333, 784, 1024, 1031, 6000}) {
    CheckRanges<float>(DType::kFloat32, plane);
    CheckRanges<uint16_t>(DType::kBFloat16, plane);
    CheckRanges<uint16_t>(DType::kFloat16, plane);
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Every value of a 16-bit type, with what rounds it up, down and to even: as one rounding of the map in float32.
TEST(Affine, HalvesAreRoundedToTheNearest) {
  constexpr int64_t kValues = 1 << 16;
  std::vector<uint16_t> x(kValues);
  std::iota(x.begin(), x.end(), uint16_t{0});
  const float scale = 1, pivot = 0;
  const uint32_t ones = 0xFFFFFFFF;
  float none;
  std::memcpy(&none, &ones, sizeof(none));
  for (const DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    Tensor from = Tensor::Allocate(dtype, {kValues}).value(), to = Tensor::Allocate(dtype, {kValues}).value();
    std::memcpy(from.mutable_data<std::byte>(), x.data(), from.byte_size());
    const Tensor wide = from.ConvertedTo(DType::kFloat32).value();
    for (const float shift : {0.0f, 0x1p-8f, 3 * 0x1p-8f, 0x1.000002p-8f, -0x1.7p-7f, 0x1p-11f, 3 * 0x1p-11f, 0x1p-25f,
                              0x1p-133f, 15.99f, 3e38f, -INFINITY, none}) {
      Tensor sums = Tensor::Allocate(DType::kFloat32, {kValues}).value();
      std::transform(wide.data<float>(), wide.data<float>() + kValues, sums.mutable_data<float>(),
                     [&](float value) { return value + shift; });
      const Tensor want = sums.ConvertedTo(dtype).value();
      ForEachTarget([&](const char* target) {
        AffineArgs args;
        args.src = from.bytes();
        args.dst = to.mutable_data<std::byte>();
        args.scale = &scale;
        args.shift = &shift;
        args.pivot = &pivot;
        FindExactRows(dtype, Activation::kNone, Residual::kNone).planes(args, 1, kValues, 0, kValues);
        for (int64_t i = 0; i < kValues; ++i) {
          const double found = to.AsDouble(i), expected = want.AsDouble(i);
          ASSERT_TRUE(std::isnan(expected) ? std::isnan(found) : found == expected)
              << target << " " << Name(dtype) << ": " << wide.data<float>()[i] << " + " << shift << " = " << found
              << ", expected " << expected;
        }
      });
    }
  }
}

TEST(Affine, Refuses) {
  KernelCase c = BatchNorm({2, 4, 3, 3});
  c.constant[3] = false;
  EXPECT_EQ(Refusal(c, "affine"), "parameters are not constant");
}

}  // namespace
}  // namespace crease::test
