// SPDX-License-Identifier: Apache-2.0
// Maps beside a Cast between float types: folded only where no value is rounded to a narrower type that was not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "graph/passes/passes.h"
#include "graph/verify.h"

namespace crease {
namespace {

constexpr DType kF16 = DType::kFloat16, kBF16 = DType::kBFloat16, kF32 = DType::kFloat32, kF64 = DType::kFloat64;
constexpr int64_t kChannels = 3;

struct CastNet {
  GraphBuilder builder;
  int names = 0;

  std::string Fresh(const std::string& stem) { return stem + std::to_string(++names); }
  ValueId Input(DType dtype) { return builder.AddInput("x", TensorType::Of(dtype, {2, kChannels, 4, 4})); }
  ValueId Constant(const Shape& shape, DType dtype, double spread, double centre) {
    std::vector<double> values(static_cast<size_t>(*ElementCount(shape)));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = centre + spread * std::sin(1.0 + 2.7 * static_cast<double>(i));
    return builder.AddConstant(Fresh("c"),
                               *Tensor::From<double>(shape, std::span<const double>(values)).ConvertedTo(dtype));
  }
  ValueId Op(const std::string& op, std::vector<ValueId> operands, std::vector<Attribute> attributes = {}) {
    return builder.Add(op, std::move(operands), Fresh(op), std::move(attributes));
  }
  ValueId Conv(ValueId x, DType dtype) {
    return Op("Conv", {x, Constant({kChannels, kChannels, 3, 3}, dtype, 0.4, 0), Constant({kChannels}, dtype, 0.5, 0)});
  }
  ValueId Bn(ValueId x, DType dtype, double shift = 0.4) {
    return Op("BatchNormalization", {x, Constant({kChannels}, dtype, 0.4, 1), Constant({kChannels}, dtype, shift, 0),
                                     Constant({kChannels}, dtype, shift, 0), Constant({kChannels}, dtype, 0.4, 1)});
  }
  ValueId Cast(ValueId x, DType to) {
    const int64_t number = to == kF32 ? 1 : to == kF16 ? 10 : to == kF64 ? 11 : 16;
    return Op("Cast", {x}, {MakeAttr("to", number)});
  }
};

int Count(const Graph& graph, std::string_view op) {
  const auto& order = graph.topological_order();
  return static_cast<int>(
      std::count_if(order.begin(), order.end(), [&](NodeId id) { return graph.node(id).op_type == op; }));
}

// Folds the network of the outputs that `build` makes: the batch-norms that are left, all for this rule.
int BatchNormsLeft(const std::function<std::vector<ValueId>(CastNet&)>& build) {
  CastNet net;
  for (const ValueId output : build(net)) net.builder.AddOutput(output);
  const Result<Graph> before = std::move(net.builder).Build();
  EXPECT_TRUE(before.ok()) << before.error().ToString();
  if (!before.ok()) return -1;
  Graph after = *before;
  const Result<PassLog> log = RunPasses(after, FoldingPasses());
  EXPECT_TRUE(log.ok()) << log.error().ToString();
  if (!log.ok()) return -1;
  for (const LogEntry& entry : *log) {
    if (entry.applied) continue;
    EXPECT_NE((entry.code + entry.message).find("cast-rounds"), std::string::npos) << entry.code << entry.message;
  }
  const TensorMap inputs = *RandomInputs(after, {});
  const Result<Comparison> compared = CompareInDouble(*before, after, inputs, {.tolerance = 0.1});
  if (compared.ok()) {
    EXPECT_LT(compared->worst(), 0.1);
  } else {
    EXPECT_EQ(compared.error().code, ErrorCode::kUnsupported) << compared.error().ToString();
  }
  return Count(after, "BatchNormalization");
}

struct Types {
  DType narrow, wide;
};
std::ostream& operator<<(std::ostream& out, const Types& t) { return out << Name(t.narrow) << "_" << Name(t.wide); }
class FoldCast : public ::testing::TestWithParam<Types> {
 protected:
  const DType narrow = GetParam().narrow, wide = GetParam().wide;
};

TEST_P(FoldCast, BackwardThroughAWideningOne) {
  const auto mapped = [&](CastNet& n) { return n.Bn(n.Cast(n.Conv(n.Input(narrow), narrow), wide), wide); };
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) { return std::vector{mapped(n)}; }), 1) << "the result is an output";
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) { return std::vector{n.Op("Sigmoid", {mapped(n)})}; }), 1);
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) { return std::vector{n.Cast(mapped(n), narrow)}; }), 0);
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
              const ValueId y = mapped(n);
              return std::vector{n.Cast(y, narrow), n.Cast(y, narrow)};
            }),
            0);
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
              const ValueId y = mapped(n);
              return std::vector{n.Cast(y, narrow), n.Op("Sigmoid", {y})};
            }),
            1)
      << "another reader has it unrounded";
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
              const ValueId y = mapped(n);
              return std::vector{n.Cast(y, narrow), y};
            }),
            1)
      << "an output has it unrounded";
  for (const bool first : {true, false}) {
    EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
                const ValueId y = mapped(n);
                constexpr int64_t kString = 8;
                const auto text = [&] { return n.Op("Cast", {y}, {MakeAttr("to", kString)}); };
                if (first) return std::vector{text(), n.Cast(y, narrow)};
                const ValueId half = n.Cast(y, narrow);
                return std::vector{half, text()};
              }),
              1)
        << "a type that is not known may need it unrounded";
  }
}

// What is rounded behind a sum or a rectifier is not what is before it.
TEST_P(FoldCast, BackwardOnlyFromRightBehindTheCast) {
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
              const ValueId y = n.Op("Relu", {n.Cast(n.Conv(n.Input(narrow), narrow), wide)});
              return std::vector{n.Cast(n.Bn(y, wide, 0), narrow)};
            }),
            1);
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
              const ValueId x = n.Input(narrow);
              const ValueId a = n.Cast(n.Conv(x, narrow), wide), b = n.Cast(n.Conv(x, narrow), wide);
              return std::vector{n.Cast(n.Bn(n.Op("Add", {a, b}), wide), narrow)};
            }),
            1);
}

TEST_P(FoldCast, BackwardThroughANarrowingOne) {
  EXPECT_EQ(BatchNormsLeft(
                [&](CastNet& n) { return std::vector{n.Bn(n.Cast(n.Conv(n.Input(wide), wide), narrow), narrow)}; }),
            1);
}

TEST_P(FoldCast, ForwardThroughANarrowingOne) {
  EXPECT_EQ(BatchNormsLeft(
                [&](CastNet& n) { return std::vector{n.Conv(n.Cast(n.Bn(n.Input(wide), wide), narrow), narrow)}; }),
            1);
}

TEST_P(FoldCast, ForwardThroughAWideningOne) {
  EXPECT_EQ(BatchNormsLeft(
                [&](CastNet& n) { return std::vector{n.Conv(n.Cast(n.Bn(n.Input(narrow), narrow), wide), wide)}; }),
            0);
}

INSTANTIATE_TEST_SUITE_P(Types, FoldCast,
                         ::testing::Values(Types{kF16, kF32}, Types{kBF16, kF32}, Types{kF16, kF64}, Types{kF32, kF64}),
                         ::testing::PrintToStringParamName());

// Neither of the two holds the other.
TEST(FoldCastHalves, NeverBetweenThem) {
  for (const auto& [from, to] : {std::pair(kF16, kBF16), std::pair(kBF16, kF16)}) {
    EXPECT_EQ(BatchNormsLeft([&, from = from, to = to](CastNet& n) {
                return std::vector{n.Cast(n.Bn(n.Cast(n.Conv(n.Input(from), from), to), to), from)};
              }),
              1);
    EXPECT_EQ(BatchNormsLeft([&, from = from, to = to](CastNet& n) {
                return std::vector{n.Conv(n.Cast(n.Bn(n.Input(from), from), to), to)};
              }),
              1);
  }
}

// float16 goes to float64 by float32; the result is rounded to float32 or float16 behind.
TEST(FoldCastChains, OneCastOfThem) {
  for (const DType last : {kF32, kF16}) {
    EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
                const ValueId y = n.Cast(n.Cast(n.Conv(n.Input(kF16), kF16), kF32), kF64);
                return std::vector{n.Cast(n.Bn(y, kF64), last)};
              }),
              1);
  }
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
              return std::vector{n.Cast(n.Bn(n.Cast(n.Conv(n.Input(kF32), kF32), kF64), kF64), kF16)};
            }),
            0)
      << "float32 holds float16";
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
              return std::vector{n.Conv(n.Cast(n.Cast(n.Bn(n.Input(kF16), kF16), kF32), kF64), kF64)};
            }),
            0);
  EXPECT_EQ(BatchNormsLeft([&](CastNet& n) {
              return std::vector{n.Conv(n.Cast(n.Cast(n.Bn(n.Input(kF32), kF32), kF16), kF32), kF32)};
            }),
            1)
      << "there and back rounds to float16";
}

}  // namespace
}  // namespace crease
