// SPDX-License-Identifier: Apache-2.0
#include "tests/support/random_graph.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace crease::testing {
namespace {

int64_t Count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t d : shape) count *= d;
  return count;
}

Attribute Ints64(const char* name, std::vector<int64_t> values) { return MakeAttr(name, std::move(values)); }

constexpr int64_t kLargest = 4096;  // elements of a value

}  // namespace

double RandomGraph::ScaleValue() {
  if (!options_.awkward) return Uniform(0.5, 1.5);
  switch (Int(0, 9)) {
    case 0:
      return 0;
    case 1:
      return 1;
    case 2:
      return Uniform(-1.5, -0.5);
    case 3:
      return std::pow(10.0, static_cast<double>(Int(-15, 15)));
    default:
      return Uniform(0.25, 2);
  }
}

ValueId RandomGraph::Constant(Shape shape, const std::vector<double>& values) {
  Tensor tensor = Tensor::From<double>(std::move(shape), std::span<const double>(values));
  if (options_.dtype != DType::kFloat64) tensor = *tensor.ConvertedTo(options_.dtype);
  if (!Chance(15)) return builder_.AddConstant(Fresh("c"), std::move(tensor));
  return builder_.Add("Constant", {}, Fresh("k"), {MakeAttr("value", std::move(tensor))});
}

ValueId RandomGraph::NormalConstant(Shape shape) {
  std::vector<double> values(static_cast<size_t>(Count(shape)));
  for (double& v : values) v = Normal();
  return Constant(std::move(shape), values);
}

ValueId RandomGraph::Ints(const std::vector<int64_t>& values) {
  return builder_.AddConstant(
      Fresh("i"), Tensor::From<int64_t>({static_cast<int64_t>(values.size())}, std::span<const int64_t>(values)));
}

const RandomGraph::Live& RandomGraph::Pick() {
  // Mostly the newest: chains are where maps travel.
  if (Chance(65)) return live_.back();
  return live_[static_cast<size_t>(Int(0, static_cast<int64_t>(live_.size()) - 1))];
}

RandomGraph::Live RandomGraph::Emit(const char* op, std::vector<ValueId> inputs, Shape shape,
                                    std::vector<Attribute> attributes) {
  Live made{builder_.Add(op, std::move(inputs), Fresh("v"), std::move(attributes)), std::move(shape)};
  live_.push_back(made);
  return made;
}

void RandomGraph::AddInput(int spatial_rank) {
  Shape shape{Int(1, 2), Int(1, 6)};
  for (int i = 0; i < spatial_rank; ++i) shape.push_back(Int(3, spatial_rank == 3 ? 4 : 7));
  const std::string name = Fresh("x");
  TensorType type = TensorType::Of(options_.dtype, shape);
  const int64_t unknown = Int(0, 3);
  if (unknown >= 2) type.dims[0] = {Dim::kUnknown, "N"};
  for (size_t i = 2; unknown == 3 && i < shape.size(); ++i) type.dims[i] = {Dim::kUnknown, ""};
  live_.push_back({builder_.AddInput(name, std::move(type)), shape});
  std::vector<double> values(static_cast<size_t>(Count(shape)));
  for (double& v : values) v = Normal() + 0.3;
  inputs_[name] = Tensor::From<double>(shape, std::span<const double>(values));
  if (options_.dtype != DType::kFloat64) inputs_[name] = *inputs_[name].ConvertedTo(options_.dtype);
}

void RandomGraph::Conv(const Live& x) {
  const size_t spatial = x.shape.size() - 2;
  const int64_t channels = x.shape[1];
  std::vector<int64_t> divisors;
  for (int64_t g = 1; g <= channels; ++g) {
    if (channels % g == 0) divisors.push_back(g);
  }
  const int64_t group =
      Chance(50) ? 1 : divisors[static_cast<size_t>(Int(0, static_cast<int64_t>(divisors.size()) - 1))];
  const int64_t outputs = group * Int(1, group > 3 ? 1 : 3);
  Shape w{outputs, channels / group}, y{x.shape[0], outputs};
  std::vector<int64_t> kernel, strides, dilations, begin, end;
  const bool same = Chance(15), padded = Chance(50);
  for (size_t i = 0; i < spatial; ++i) {
    const int64_t size = x.shape[i + 2];
    kernel.push_back(Int(1, std::min<int64_t>(3, size)));
    strides.push_back(Int(1, 2));
    dilations.push_back(kernel[i] > 1 && !same && (kernel[i] - 1) * 2 + 1 <= size && Chance(20) ? 2 : 1);
    begin.push_back(padded && !same ? Int(0, 2) : 0);
    end.push_back(padded && !same ? Int(0, 2) : 0);
    const int64_t extent = (kernel[i] - 1) * dilations[i] + 1;
    y.push_back(same ? (size + strides[i] - 1) / strides[i] : (size + begin[i] + end[i] - extent) / strides[i] + 1);
    w.push_back(kernel[i]);
  }
  ValueId weight = kNone;
  for (const auto& [id, shape] : weights_) {
    if (shape == w && Chance(60)) weight = id;
  }
  if (weight == kNone) {
    weight = NormalConstant(w);
    weights_.emplace_back(weight, w);
  }
  std::vector<ValueId> inputs{x.id, weight};
  if (Chance(60)) inputs.push_back(NormalConstant({outputs}));
  std::vector<Attribute> attributes{Ints64("strides", strides), MakeAttr("group", group)};
  if (same) {
    attributes.push_back(MakeAttr("auto_pad", std::string_view(Chance(50) ? "SAME_UPPER" : "SAME_LOWER")));
  } else {
    begin.insert(begin.end(), end.begin(), end.end());
    attributes.push_back(Ints64("pads", begin));
    attributes.push_back(Ints64("dilations", dilations));
  }
  Emit("Conv", std::move(inputs), std::move(y), std::move(attributes));
}

void RandomGraph::ConvTranspose(const Live& x) {
  const size_t spatial = x.shape.size() - 2;
  const int64_t channels = x.shape[1], group = channels % 2 == 0 && Chance(50) ? 2 : 1, columns = Int(1, 3);
  Shape w{channels, columns}, y{x.shape[0], columns * group};
  std::vector<int64_t> kernel, strides, pads(2 * spatial, 0);
  const bool point = Chance(30);
  for (size_t i = 0; i < spatial; ++i) {
    kernel.push_back(point ? 1 : Int(1, 3));
    strides.push_back(point ? 1 : Int(1, 2));
    const int64_t whole = (x.shape[i + 2] - 1) * strides[i] + kernel[i];
    if (!point && Chance(30) && whole > 2) pads[i] = 1;
    y.push_back(whole - pads[i]);
    w.push_back(kernel[i]);
  }
  if (Count(y) > kLargest) return;
  std::vector<ValueId> inputs{x.id, NormalConstant(w)};
  if (Chance(50)) inputs.push_back(NormalConstant({columns * group}));
  Emit("ConvTranspose", std::move(inputs), std::move(y),
       {Ints64("strides", strides), Ints64("pads", pads), MakeAttr("group", group)});
}

void RandomGraph::BatchNorm(const Live& x) {
  const auto channels = static_cast<size_t>(x.shape[1]);
  std::vector<double> gamma(channels), beta(channels), mean(channels), var(channels);
  const bool positive = Chance(30), no_shift = Chance(30);
  for (size_t c = 0; c < channels; ++c) {
    gamma[c] = positive ? Uniform(0.3, 1.7) : ScaleValue();
    beta[c] = no_shift ? 0 : Normal();
    mean[c] = no_shift ? 0 : Normal();
    var[c] = options_.awkward && Chance(10) ? (Chance(50) ? 1e-6 : 1e4) : Uniform(0.3, 2);
  }
  const Shape shape{x.shape[1]};
  Emit("BatchNormalization",
       {x.id, Constant(shape, gamma), Constant(shape, beta), Constant(shape, mean), Constant(shape, var)}, x.shape,
       {MakeAttr("epsilon", Chance(50) ? 1e-5f : 1e-3f)});
}

void RandomGraph::Arithmetic(const Live& x) {
  static const char* const kOps[] = {"Mul", "Add", "Sub", "Div"};
  const char* op = kOps[Int(0, 3)];
  const bool divide = std::string_view(op) == "Div";
  const auto rank = static_cast<int64_t>(x.shape.size());
  Shape shape;
  const int64_t kind = Int(0, 4);
  if (kind == 1) shape = {1};
  // Along the channels, or another axis (a trap), in the shortest or the full rank.
  if (kind >= 2) {
    const int64_t axis = kind == 4 ? Int(0, rank - 1) : 1;
    shape.assign(static_cast<size_t>(Chance(50) ? rank : rank - axis), 1);
    shape[shape.size() - static_cast<size_t>(rank - axis)] = x.shape[static_cast<size_t>(axis)];
  }
  std::vector<double> values(static_cast<size_t>(Count(shape)));
  for (double& v : values) {
    v = ScaleValue();
    if (divide && v == 0) v = 0.7;
  }
  const ValueId constant = Constant(shape, values);
  const bool swapped = !divide && Chance(50);
  Emit(op, swapped ? std::vector<ValueId>{constant, x.id} : std::vector<ValueId>{x.id, constant}, x.shape);
}

void RandomGraph::Activation(const Live& x) {
  switch (Int(0, 6)) {
    case 0:
    case 1:
    case 2:
      Emit("Relu", {x.id}, x.shape);
      return;
    case 3:
      Emit("LeakyRelu", {x.id}, x.shape, {MakeAttr("alpha", 0.2f)});
      return;
    case 4: {
      Shape slope(x.shape.size() - 1, 1);
      slope[0] = x.shape[1];
      Emit("PRelu", {x.id, NormalConstant(slope)}, x.shape);
      return;
    }
    case 5:
      Emit("Sigmoid", {x.id}, x.shape);
      return;
    default:
      Emit(Chance(50) ? "Identity" : "Dropout", {x.id}, x.shape);
  }
}

void RandomGraph::Pool(const Live& x) {
  Shape y(x.shape.begin(), x.shape.begin() + 2);
  if (Chance(20)) {
    y.resize(x.shape.size(), 1);
    Emit(Chance(50) ? "GlobalAveragePool" : "GlobalMaxPool", {x.id}, std::move(y));
    return;
  }
  const size_t spatial = x.shape.size() - 2;
  std::vector<int64_t> kernel, strides, begin, end;
  for (size_t i = 0; i < spatial; ++i) {
    kernel.push_back(Int(1, std::min<int64_t>(3, x.shape[i + 2])));
    strides.push_back(Int(1, 2));
    begin.push_back(Chance(30) ? Int(0, kernel[i] - 1) : 0);
    end.push_back(Chance(30) ? Int(0, kernel[i] - 1) : 0);
    y.push_back((x.shape[i + 2] + begin[i] + end[i] - kernel[i]) / strides[i] + 1);
  }
  begin.insert(begin.end(), end.begin(), end.end());
  std::vector<Attribute> attributes{Ints64("kernel_shape", kernel), Ints64("strides", strides), Ints64("pads", begin)};
  const bool average = Chance(60);
  if (average) attributes.push_back(MakeAttr("count_include_pad", Int(0, 1)));
  Emit(average ? "AveragePool" : "MaxPool", {x.id}, std::move(y), std::move(attributes));
}

void RandomGraph::Concat(const Live& x) {
  std::vector<ValueId> inputs{x.id};
  Shape y = x.shape;
  for (int tries = 0; tries < 6 && inputs.size() < 3; ++tries) {
    const Live& other = live_[static_cast<size_t>(Int(0, static_cast<int64_t>(live_.size()) - 1))];
    Shape expected = other.shape;
    if (expected.size() < 2 || expected.size() != x.shape.size()) continue;
    expected[1] = x.shape[1];
    if (expected != x.shape || y[1] + other.shape[1] > 12) continue;
    inputs.push_back(other.id);
    y[1] += other.shape[1];
  }
  if (Chance(15) && y[1] <= 10) {
    Shape constant = x.shape;
    constant[1] = 2;
    inputs.push_back(NormalConstant(constant));
    y[1] += 2;
  }
  Emit("Concat", std::move(inputs), std::move(y),
       {MakeAttr("axis", Chance(80) ? int64_t{1} : 1 - static_cast<int64_t>(x.shape.size()))});
}

void RandomGraph::Residual(const Live& x) {
  for (int tries = 0; tries < 8; ++tries) {
    const Live& other = live_[static_cast<size_t>(Int(0, static_cast<int64_t>(live_.size()) - 1))];
    if (other.shape != x.shape || (other.id == x.id && Chance(80))) continue;
    static const char* const kOps[] = {"Add", "Sub", "Sum", "Mul"};
    Emit(kOps[Int(0, 3)], {x.id, other.id}, x.shape);
    return;
  }
  // A second branch of the same shape, so that both can absorb.
  if (x.shape.size() < 3) return;
  Shape w{x.shape[1], x.shape[1]};
  w.resize(x.shape.size(), 1);
  const Live first = x;
  const Live a = Emit("Conv", {first.id, NormalConstant(w)}, first.shape),
             b = Emit("Conv", {first.id, NormalConstant(w)}, first.shape);
  Emit(Chance(70) ? "Add" : "Sub", {a.id, b.id}, first.shape);
}

void RandomGraph::Pad(const Live& x) {
  const size_t rank = x.shape.size();
  std::vector<int64_t> pads(2 * rank, 0);
  Shape y = x.shape;
  static const char* const kModes[] = {"constant", "constant", "reflect", "edge"};
  const std::string_view mode = kModes[Int(0, 3)];
  for (size_t i = Chance(25) ? 1 : 2; i < rank; ++i) {
    if (mode != "constant" && (i < 2 || x.shape[i] < 3)) continue;
    pads[i] = Int(0, 1);
    pads[i + rank] = Int(0, 1);
    y[i] += pads[i] + pads[i + rank];
  }
  std::vector<ValueId> inputs{x.id, Ints(pads)};
  if (mode == "constant" && Chance(40)) inputs.push_back(Constant({}, {Chance(50) ? 0.0 : 1.5}));
  Emit("Pad", std::move(inputs), std::move(y), {MakeAttr("mode", mode)});
}

void RandomGraph::Slice(const Live& x) {
  const int64_t axis = Chance(70) ? 1 : Int(1, static_cast<int64_t>(x.shape.size()) - 1),
                size = x.shape[static_cast<size_t>(axis)];
  if (size < 2) return;
  const int64_t start = Int(0, size - 2), end = Int(start + 1, size), step = Int(1, 2);
  Shape y = x.shape;
  y[static_cast<size_t>(axis)] = (end - start + step - 1) / step;
  Emit("Slice", {x.id, Ints({start}), Ints({end}), Ints({axis}), Ints({step})}, std::move(y));
}

void RandomGraph::Split(const Live& x) {
  if (x.shape[1] < 2) return;
  const int64_t first = Int(1, x.shape[1] - 1);
  Node node;
  node.op_type = "Split";
  node.name = Fresh("split");
  node.inputs = {x.id, Ints({first, x.shape[1] - first})};
  node.attributes = {MakeAttr("axis", int64_t{1})};
  Shape a = x.shape, b = x.shape;
  a[1] = first;
  b[1] = x.shape[1] - first;
  const Live one{builder_.GetOrAddValue(Fresh("v")), a}, two{builder_.GetOrAddValue(Fresh("v")), b};
  node.outputs = {one.id, two.id};
  builder_.AddNode(std::move(node));
  live_.push_back(one);
  live_.push_back(two);
}

void RandomGraph::Move(const Live& x) {
  const size_t rank = x.shape.size();
  if (Chance(40)) {
    std::vector<int64_t> perm(rank);
    for (size_t i = 0; i < rank; ++i) perm[i] = static_cast<int64_t>(i);
    std::shuffle(perm.begin() + 1, perm.end(), random_);
    Shape y;
    for (int64_t p : perm) y.push_back(x.shape[static_cast<size_t>(p)]);
    const Live moved = Emit("Transpose", {x.id}, std::move(y), {Ints64("perm", perm)});
    if (Chance(70)) return BatchNorm(moved);
    return;
  }
  // Cut or join axes.
  Shape y = x.shape;
  const size_t axis = static_cast<size_t>(Int(1, static_cast<int64_t>(rank) - 1));
  if (Chance(50) && y[axis] % 2 == 0 && rank < 6) {
    y[axis] /= 2;
    y.insert(y.begin() + static_cast<int64_t>(axis) + (Chance(50) ? 1 : 0), 2);
  } else if (rank > 3) {
    const size_t join = std::min(axis, rank - 2);
    y[join] *= y[join + 1];
    y.erase(y.begin() + static_cast<int64_t>(join) + 1);
  } else {
    y.push_back(1);
  }
  std::vector<int64_t> target(y.begin(), y.end());
  if (Chance(50)) target[0] = 0;
  const Live reshaped = Emit("Reshape", {x.id, Ints(target)}, y);
  if (Chance(70)) BatchNorm(reshaped);
}

void RandomGraph::Resize(const Live& x) {
  if (Count(x.shape) * 4 > kLargest || x.shape.size() != 4) return;
  Shape y = x.shape;
  y[2] *= 2;
  y[3] *= 2;
  const ValueId scales = builder_.AddConstant(Fresh("s"), Tensor::From<float>({4}, {1, 1, 2, 2}));
  Emit("Resize", {x.id, kNone, scales}, std::move(y),
       {MakeAttr("mode", std::string_view(Chance(50) ? "nearest" : "linear"))});
}

void RandomGraph::Matrix(const Live& x) {
  Live flat = x;
  const bool keep = Chance(30);
  if (!keep && x.shape.size() > 2) {
    flat = Emit("Flatten", {x.id}, {x.shape[0], Count(x.shape) / x.shape[0]});
  }
  const int64_t inner = flat.shape.back(), outputs = Int(1, 5);
  if (inner > 256) return;
  Shape y = flat.shape;
  y.back() = outputs;
  if (flat.shape.size() == 2 && Chance(60)) {
    const int64_t trans_b = Int(0, 1);
    std::vector<ValueId> inputs{flat.id, NormalConstant(trans_b ? Shape{outputs, inner} : Shape{inner, outputs})};
    const int64_t bias = Int(0, 4);
    if (bias == 1) inputs.push_back(NormalConstant({outputs}));
    if (bias == 2) inputs.push_back(NormalConstant({}));
    if (bias == 3) inputs.push_back(NormalConstant({flat.shape[0], 1}));
    if (bias == 4) inputs.push_back(NormalConstant({1, outputs}));
    Emit("Gemm", std::move(inputs), std::move(y),
         {MakeAttr("transB", trans_b), MakeAttr("alpha", Chance(50) ? 1.0f : 0.5f),
          MakeAttr("beta", Chance(50) ? 1.0f : -2.0f)});
  } else if (flat.shape.size() > 2 && Chance(40)) {
    const int64_t rows = flat.shape[flat.shape.size() - 2];
    Shape left = flat.shape;
    left[left.size() - 2] = outputs;
    Emit("MatMul", {NormalConstant({outputs, rows}), flat.id}, std::move(left));
  } else {
    Emit("MatMul", {flat.id, NormalConstant({inner, outputs})}, std::move(y));
  }
  if (Chance(60)) BatchNorm(Live(live_.back()));
}

void RandomGraph::Depth(const Live& x) {
  if (x.shape.size() != 4) return;
  Shape y = x.shape;
  if (x.shape[1] % 4 == 0) {
    y = {x.shape[0], x.shape[1] / 4, x.shape[2] * 2, x.shape[3] * 2};
    Emit("DepthToSpace", {x.id}, std::move(y),
         {MakeAttr("blocksize", int64_t{2}), MakeAttr("mode", std::string_view(Chance(50) ? "DCR" : "CRD"))});
  } else if (x.shape[2] % 2 == 0 && x.shape[3] % 2 == 0) {
    y = {x.shape[0], x.shape[1] * 4, x.shape[2] / 2, x.shape[3] / 2};
    Emit("SpaceToDepth", {x.id}, std::move(y), {MakeAttr("blocksize", int64_t{2})});
  }
}

void RandomGraph::Step() {
  const Live x = Pick();
  const bool image = x.shape.size() >= 3;
  const int64_t kind = Int(0, 99);
  if (kind < 24) return BatchNorm(x);
  if (kind < 36) return Arithmetic(x);
  if (kind < 52 && image) return Conv(x);
  if (kind < 56 && image) return ConvTranspose(x);
  if (kind < 66) return Activation(x);
  if (kind < 72 && image) return Pool(x);
  if (kind < 77) return Concat(x);
  if (kind < 82) return Residual(x);
  if (kind < 85) return Pad(x);
  if (kind < 88) return Slice(x);
  if (kind < 90) return Split(x);
  if (kind < 93) return Move(x);
  if (kind < 94) return Resize(x);
  if (kind < 98) return Matrix(x);
  Depth(x);
}

Result<Graph> RandomGraph::Build() {
  const int64_t pick = Int(0, 9);
  const int spatial_rank = pick < 2 ? 1 : pick == 2 ? 3 : 2;
  AddInput(spatial_rank);
  if (Chance(20)) AddInput(spatial_rank);
  const int64_t steps = Int(2, 10);
  for (int64_t i = 0; i < steps; ++i) {
    Step();
    if (Count(live_.back().shape) > kLargest) break;
  }
  std::set<ValueId> outputs{live_.back().id};
  for (const Live& live : live_) {
    if (Chance(6)) outputs.insert(live.id);
  }
  for (ValueId id : outputs) builder_.AddOutput(id);
  return std::move(builder_).Build();
}

}  // namespace crease::testing
