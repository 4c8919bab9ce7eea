// SPDX-License-Identifier: Apache-2.0
// What lists of channels give is what all products give, to the bit; these have tests of their own.
#include "kernels/conv_sparse.h"

#include <algorithm>
#include <array>
#include <limits>
#include <random>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/rounding.h"
#include "kernels/targets.h"
#include "tests/kernels/conv_test_util.h"

namespace crease::test {
namespace {

constexpr double kBound = 1e-5;

SparseConv::Options OptionsFor(const ConvCase& test, const ConvData& data, Executor& executor, int planned) {
  SparseConv::Options options;
  options.epilogue = test.epilogue;
  options.prologue = data.prologue;
  options.src_pitch = data.src_pitch;
  options.executor = &executor;
  options.workers = planned;
  return options;
}

template <typename Conv>
void RunOn(const Conv& conv, int workers, ConvData& data) {
  ThreadsExecutor executor(workers);
  FloatBuffer scratch(conv.scratch_bytes(workers) / sizeof(float));
  // What a list leaves out must not be read from here either.
  std::fill_n(scratch.data(), conv.scratch_bytes(workers) / sizeof(float), std::numeric_limits<float>::quiet_NaN());
  const std::vector<std::vector<ConstBytes>> fetch = SomethingToFetch(workers);
  conv.Run({executor, reinterpret_cast<std::byte*>(scratch.data()), fetch}, data.operands());
}

// `planned`: workers that it is made for.
void RunCase(const ConvCase& test, int workers, ConvData& data, int planned) {
  ThreadsExecutor executor(planned);
  const auto conv = SparseConv::Make(test.shape, data.weights, test.bias ? &data.bias : nullptr,
                                     OptionsFor(test, data, executor, planned));
  ASSERT_TRUE(conv.ok());
  RunOn(*conv, workers, data);
}

void RunDense(const ConvCase& test, ConvData& data) {
  SerialExecutor executor;
  const auto conv = GemmConv::Make(test.shape, ConvMatrix(test.shape, data.weights, test.bias ? &data.bias : nullptr),
                                   OptionsFor(test, data, executor, 1));
  ASSERT_TRUE(conv.ok());
  RunOn(*conv, 1, data);
}

// Zeros in a source: of `share` of the channels of all pixels of three neighbours, and here and there besides.
void Thin(const ConvShape& s, double share, ConvData& data) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<bool> absent(static_cast<size_t>(s.channels));
  for (int64_t pixel = 0; pixel < s.batch * s.height * s.width; ++pixel) {
    for (int64_t k = 0; k < s.channels; ++k) {
      if (pixel % 3 == 0) absent[static_cast<size_t>(k)] = uniform(random) < share;
      if (!absent[static_cast<size_t>(k)] && uniform(random) > 0.1) continue;
      data.src[static_cast<size_t>(pixel * data.src_pitch + k)] = pixel % 2 == 0 ? 0.0f : -0.0f;
    }
  }
}

void CheckCase(const ConvCase& test, double share) {
  ASSERT_TRUE(SparseConv::CanRun(test.shape)) << test.ToString();
  ConvData dense(test), one(test), three(test), planned(test);
  for (ConvData* data : {&dense, &one, &three, &planned}) Thin(test.shape, share, *data);
  RunDense(test, dense);
  RunCase(test, 1, one, 1);
  one.Check(kBound);
  ASSERT_EQ(one.dst, dense.dst) << "other bits than all products: " << test.ToString();
  RunCase(test, 3, three, 3);
  ASSERT_EQ(one.dst, three.dst) << "bits depend on the workers: " << test.ToString();
  RunCase(test, 1, planned, 3);
  ASSERT_EQ(one.dst, planned.dst) << "bits depend on the plan: " << test.ToString();
}

void CheckOnEveryTarget(const std::vector<ConvCase>& cases, double share = 0.5) {
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const ConvCase& test : cases) {
      CheckCase(test, share);
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(SparseConv, Sizes) {
  std::vector<ConvCase> cases;
  for (const int64_t c : {1, 5, 8, 16, 39, 577}) {
    for (const int64_t k : {1, 8, 17, 32, 41, 100, 160}) cases.push_back({MakeConvShape(1, 5, 7, c, k, 1)});
  }
  cases.push_back({MakeConvShape(3, 3, 3, 20, 72, 1)});      // tiles across images
  cases.push_back({MakeConvShape(1, 41, 37, 64, 96, 1)});    // several blocks, weights in L2
  cases.push_back({MakeConvShape(1, 14, 13, 520, 600, 1)});  // and beyond
  cases.push_back({MakeConvShape(1, 9, 7, 1200, 70, 1)});    // several pieces
  CheckOnEveryTarget(cases);
}

TEST(SparseConv, Shares) {
  const ConvCase test{MakeConvShape(1, 9, 11, 70, 130, 1)};
  for (const double share : {0.0, 0.1, 0.3, 0.8, 0.99, 1.0}) CheckOnEveryTarget({test}, share);
}

// Channels enough, and zeros, for lists to be shorter on every target.
TEST(SparseConv, FewPixels) {
  std::vector<ConvCase> cases;
  for (int64_t w = 1; w <= 13; ++w) cases.push_back({MakeConvShape(1, 1, w, 150, 96, 1)});
  cases.push_back({MakeConvShape(3, 3, 3, 150, 96, 1)});
  CheckOnEveryTarget(cases, 0.9);
}

TEST(SparseConv, Strides) {
  CheckOnEveryTarget({{MakeConvShape(2, 9, 8, 150, 96, 1, 2, 0)},
                      {MakeConvShape(2, 7, 7, 150, 96, 1, 3, 0)},
                      {MakeConvShape(1, 15, 1, 150, 96, 1, 2, 0)}},
                     0.95);
}

TEST(SparseConv, EpiloguesAndPrologues) {
  std::vector<ConvCase> cases;
  for (int activation = 0; activation <= static_cast<int>(Activation::kMish); ++activation) {
    for (const Residual residual : {Residual::kNone, Residual::kBeforeActivation, Residual::kAfterActivation}) {
      ConvCase test{MakeConvShape(1, 5, 5, 108, 75, 1), {static_cast<Activation>(activation), 0.1f, 0.9f, residual}};
      test.src_extra = 3;
      test.dst_extra = 5;
      test.bias = activation % 2 == 0;
      cases.push_back(test);
      test.prologue = true;
      test.in_place = residual != Residual::kNone;
      cases.push_back(test);
      test.shape = MakeConvShape(1, 4, 5, 700, 44, 1);  // in pieces
      cases.push_back(test);
    }
  }
  cases.push_back({MakeConvShape(2, 9, 8, 150, 96, 1, 2, 0)});
  cases.back().prologue = true;
  CheckOnEveryTarget(cases, 0.9);
}

TEST(SparseTiles, ListChannelsOfMarks) {
  std::mt19937 random(3);
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    for (const int64_t depth : {1, 7, 8, 9, 17, 64, 300}) {
      for (int rows = 1; rows <= kSparseRows; ++rows) {
        std::vector<uint8_t> marks(static_cast<size_t>(rows * DivideUp(depth, int64_t{8})));
        const uint8_t* at[kSparseRows] = {};
        std::vector<uint16_t> expected, found(static_cast<size_t>(depth + kListTail));
        for (int r = 0; r < rows; ++r) at[r] = marks.data() + r * DivideUp(depth, int64_t{8});
        for (int64_t k = 0; k < depth; ++k) {
          bool some = false;
          for (int r = 0; r < rows; ++r) {
            const bool set = random() % 4 == 0;
            if (set) marks[static_cast<size_t>(at[r] - marks.data() + k / 8)] |= static_cast<uint8_t>(1 << k % 8);
            some = some || set;
          }
          if (some) expected.push_back(static_cast<uint16_t>(k));
        }
        const int64_t count = GetSparseOps().list(at, rows, depth, found.data());
        found.resize(static_cast<size_t>(count));
        ASSERT_EQ(found, expected) << depth << " channels, " << rows << " rows";
      }
    }
  });
}

// A tile's list of `count` channels, some two apart, and its rows in `a`, which are NaN in all others.
void MakeTile(int64_t count, int64_t depth, int64_t first_row, int row_count, std::vector<float>& a,
              ChannelList& list) {
  list.row_count = row_count;
  list.count = count;
  for (int64_t i = 0; i < count; ++i) list.channels()[i] = static_cast<uint16_t>(2 * i + (i > 3 ? 1 : 0));
  for (int r = 0; r < kSparseRows; ++r) {
    list.rows[r] = (first_row + std::min(r, row_count - 1)) * depth;
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t k = list.channels()[i];
      a[static_cast<size_t>(list.rows[r] + k)] = static_cast<float>((list.rows[r] + k) % 5);
    }
  }
}

// Tiles of every number of rows, vectors and channels, one after the other, read what is listed and nothing else.
TEST(SparseTiles, AddWhatIsListed) {
  constexpr int64_t kDepth = 40;
  constexpr std::array<int64_t, 5> kCounts = {20, 0, 1, 2, 5};
  constexpr int64_t kTiles = kSparseRows * static_cast<int64_t>(kCounts.size());
  const int64_t list_floats = ChannelList::Floats(kDepth);
  std::vector<float> a(kTiles * kSparseRows * kDepth, std::numeric_limits<float>::quiet_NaN());
  FloatBuffer lists(static_cast<size_t>(kTiles * list_floats));
  const auto list_at = [&](int64_t tile) { return reinterpret_cast<ChannelList*>(lists.data() + tile * list_floats); };
  int64_t all_rows = 0;
  for (int64_t tile = 0; tile < kTiles; ++tile) {
    const int rows = static_cast<int>(tile % kSparseRows) + 1;
    MakeTile(kCounts[static_cast<size_t>(tile / kSparseRows)], kDepth, all_rows, rows, a, *list_at(tile));
    all_rows += rows;
  }
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    const int lanes = GetGemmOps().lanes;
    for (int vectors = 1; vectors <= kMaxTileVectors; ++vectors) {
      const int64_t width = int64_t{vectors} * lanes;
      FloatBuffer b(static_cast<size_t>(kDepth * width));
      for (int64_t i = 0; i < kDepth * width; ++i) b.data()[i] = static_cast<float>(i % 13) - 6;
      SparseTiles t;
      t.lists = lists.data();
      t.list_floats = list_floats;
      t.count = kTiles;
      t.a = a.data();
      t.b = b.data();
      t.dst_stride = width;
      t.last = lanes;
      BoundsOf(Epilogue{}, t.lo, t.hi);
      for (const int64_t ahead : {0, 16, 4000}) {
        for (const int64_t step : {4, 8, 16}) {
          t.ahead = ahead == 0 ? nullptr : b.data();
          t.ahead_floats = std::min(ahead, kDepth * width);
          t.ahead_step = step;
          std::vector<float> dst(static_cast<size_t>((all_rows + 1) * width), 99.0f);
          t.dst = dst.data();
          GetSparseOps().tiles[vectors](t);
          const float* y = dst.data();
          for (int64_t tile = 0; tile < kTiles; ++tile) {
            const ChannelList& list = *list_at(tile);
            for (int64_t i = 0; i < list.row_count * width; ++i, ++y) {
              float sum = 0;
              for (int64_t j = 0; j < list.count; ++j) {
                const int64_t k = list.channels()[j];
                sum += a[static_cast<size_t>(list.rows[i / width] + k)] * b.data()[k * width + i % width];
              }
              ASSERT_EQ(*y, sum) << vectors << " vectors, tile " << tile << ", step " << step;
            }
          }
          ASSERT_EQ(*y, 99.0f);  // nothing past the last row
        }
      }
    }
  });
}

// NaN is no zero, and spoils no pixel but its own.
TEST(SparseConv, NaNsStay) {
  const ConvCase test{MakeConvShape(1, 1, 9, 24, 64, 1)};
  ForEachTarget([&](const char* target) {
    SCOPED_TRACE(target);
    ConvData data(test);
    std::fill(data.src.begin(), data.src.end(), 0.0f);
    data.src[4 * 24 + 5] = std::numeric_limits<float>::quiet_NaN();
    RunCase(test, 1, data, 1);
    for (int64_t pixel = 0; pixel < 9; ++pixel) {
      for (int64_t k = 0; k < 64; ++k) {
        const float y = data.dst[static_cast<size_t>(pixel * 64 + k)];
        if (pixel == 4) {
          ASSERT_TRUE(std::isnan(y));
        } else {
          ASSERT_EQ(y, data.bias.data<float>()[k]);
        }
      }
    }
  });
}

// Zero times infinity is NaN.
TEST(SparseConv, RefusesInfiniteWeights) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const ConvCase test{MakeConvShape(1, 4, 4, 8, 64, 1)};
    ConvData data(test);
    std::vector<float> weights(data.weights.data<float>(), data.weights.data<float>() + 64 * 8);
    weights[77] = bad;
    data.weights = Tensor::From<float>({64, 8, 1, 1}, std::span<const float>(weights));
    SerialExecutor executor;
    EXPECT_FALSE(SparseConv::Make(test.shape, data.weights, nullptr, OptionsFor(test, data, executor, 1)).ok());
  }
}

TEST(SparseConv, Rule) {
  EXPECT_FALSE(SparseConv::CanRun(MakeConvShape(1, 8, 8, 16, 16, 3)));
  EXPECT_FALSE(SparseConv::CanRun(MakeConvShape(1, 8, 8, 16, 16, 1, 1, 1)));  // padding
  EXPECT_FALSE(SparseConv::CanRun(MakeConvShape(1, 8, 8, 16, 16, 1, 1, 0, 1, 2)));
  EXPECT_FALSE(SparseConv::CanRun(MakeConvShape(0, 8, 8, 16, 16, 1)));
  EXPECT_FALSE(SparseConv::CanRun(MakeConvShape(1, 1, 1, 65537, 16, 1)));
  EXPECT_TRUE(SparseConv::CanRun(MakeConvShape(1, 9, 8, 15, 13, 1, 2, 0)));
  ForEachTarget([&](const char*) {
    EXPECT_EQ(SparseConv::Pays(MakeConvShape(1, 14, 14, 512, 512, 1)), GetAmxOps() == nullptr);
    EXPECT_FALSE(SparseConv::Pays(MakeConvShape(1, 56, 56, 16, 8, 1)));
    EXPECT_GT(SparseConv::Gain(MakeConvShape(1, 14, 14, 512, 512, 1), 0.3),
              SparseConv::Gain(MakeConvShape(1, 14, 14, 512, 512, 1), 0.6));
  });
}

}  // namespace
}  // namespace crease::test
