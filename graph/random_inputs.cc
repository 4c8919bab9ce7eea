// SPDX-License-Identifier: Apache-2.0
#include "graph/random_inputs.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "graph/op.h"

namespace crease {
namespace {

// Standard normal from raw generator bits: std::normal_distribution differs between libraries.
class Normal {
 public:
  explicit Normal(uint64_t seed) : engine_(seed) {}
  double Next() {
    const double u = Uniform(), v = Uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  bool Bit() { return (engine_() >> 40 & 1) != 0; }

 private:
  double Uniform() { return (static_cast<double>(engine_() >> 11) + 0.5) * 0x1p-53; }
  std::mt19937_64 engine_;
};

using Shapes = std::map<ValueId, Shape>;

// The size that the other network fixes for an axis of an input, or unknown.
int64_t FixedElsewhere(const Graph* other, const Value& input, size_t axis) {
  const ValueId same = other != nullptr ? other->FindValue(input.name) : kNone;
  if (same == kNone || other->value(same).type.rank() != input.type.rank()) return Dim::kUnknown;
  return other->value(same).type.dims[axis].value;
}

// Sizes of the axes that the file leaves open, where `extent` is that of those without another reason.
class OpenAxes {
 public:
  OpenAxes(const Graph& graph, const std::vector<ValueId>& inputs, const RandomInputOptions& options, int64_t extent)
      : graph_(graph), options_(options), extent_(extent) {
    for (const bool first_axes : {false, true}) {
      for (ValueId id : inputs) {
        const Value& input = graph_.value(id);
        for (size_t i = 0; i < input.type.dims.size(); ++i) {
          const Dim& dim = input.type.dims[i];
          if (first_axes && (i > 0 || IsRepeated(input))) continue;
          const int64_t size = first_axes ? Batch() : FixedElsewhere(options_.other, input, i);
          if (!dim.known() && !dim.symbol.empty() && size >= 0) sizes_.emplace(dim.symbol, size);
        }
      }
    }
  }

  Shape ShapeOf(ValueId id) {
    const Value& input = graph_.value(id);
    Shape shape;
    for (size_t i = 0; i < input.type.dims.size(); ++i) shape.push_back(SizeOf(input, i));
    return shape;
  }

  bool used_extent() const { return used_extent_; }

 private:
  int64_t Batch() const { return std::max<int64_t>(options_.batch, 1); }

  // Whether the first axis' symbol is that of other axes as well, as where all that is open has one name: it names no
  // batch then.
  static bool IsRepeated(const Value& input) {
    const std::vector<Dim>& dims = input.type.dims;
    return std::count_if(dims.begin(), dims.end(),
                         [&](const Dim& dim) { return !dim.known() && dim.symbol == dims.front().symbol; }) > 1;
  }

  int64_t SizeOf(const Value& input, size_t axis) {
    const Dim& dim = input.type.dims[axis];
    if (axis == 0 && options_.batch > 0) return options_.batch;
    if (dim.known()) return dim.value;
    if (const int64_t fixed = FixedElsewhere(options_.other, input, axis); fixed >= 0) return fixed;
    if (const auto found = sizes_.find(dim.symbol); found != sizes_.end()) return found->second;
    if (axis == 0) return Batch();
    used_extent_ = true;
    return extent_;
  }

  const Graph& graph_;
  const RandomInputOptions& options_;
  const int64_t extent_;
  std::map<std::string, int64_t> sizes_;  // by symbol
  bool used_extent_ = false;
};

// Whether shape inference finds nothing against inputs of these shapes.
Result<void> CheckShapes(const Graph& of_shapes, const Shapes& shapes, const Graph& graph) {
  std::vector<InputOverride> overrides;
  for (const auto& [id, shape] : shapes) {
    const ValueId same = graph.FindValue(of_shapes.value(id).name);
    if (same != kNone) overrides.push_back({same, TensorType::Of(of_shapes.value(id).type.dtype, shape)});
  }
  const Result<InferredTypes> types = InferTypes(graph, overrides, false);
  return types.ok() ? Result<void>() : types.error();
}

std::string Listed(const std::vector<int64_t>& sizes) {
  std::string text;
  for (int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return text;
}

Result<Shapes> ShapesThatFit(const Graph& graph, const std::vector<ValueId>& inputs,
                             const RandomInputOptions& options) {
  Error refusal;
  for (int64_t extent : options.extents) {
    OpenAxes axes(graph, inputs, options, extent);
    Shapes shapes;
    for (ValueId id : inputs) shapes[id] = axes.ShapeOf(id);
    if (!axes.used_extent()) return shapes;
    Result<void> fits = CheckShapes(graph, shapes, graph);
    if (fits.ok() && options.other != nullptr) fits = CheckShapes(graph, shapes, *options.other);
    if (fits.ok()) return shapes;
    refusal = std::move(fits).error();
  }
  CREASE_RETURN_IF_ERROR(CheckShapes(graph, {}, graph));  // what is wrong at every size
  refusal.message = "axes that the file leaves open were taken as " + Listed(options.extents) +
                    ", and none fits (at the last: " + refusal.message + "); " + std::string(options.advice);
  return refusal;
}

}  // namespace

Result<TensorMap> RandomInputs(const Graph& graph, const RandomInputOptions& options) {
  std::vector<ValueId> ids;
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    if (value.constant) continue;
    if (!value.type.has_rank || value.type.dtype == DType::kUndefined) {
      return Error{ErrorCode::kUnsupported, "its rank or type is unknown; " + std::string(options.advice),
                   "input '" + Printable(value.name) + "'"};
    }
    ids.push_back(id);
  }
  CREASE_ASSIGN_OR_RETURN(const Shapes shapes, ShapesThatFit(graph, ids, options));
  TensorMap inputs;
  Normal normal(options.seed);
  for (ValueId id : ids) {
    const DType dtype = graph.value(id).type.dtype;
    const DType made_as = IsFloat(dtype) ? DType::kFloat64 : DType::kInt64;
    CREASE_ASSIGN_OR_RETURN(Tensor made, Tensor::Allocate(made_as, shapes.at(id)));
    for (int64_t i = 0; i < made.size(); ++i) {
      if (made_as == DType::kFloat64) {
        made.mutable_data<double>()[i] = normal.Next();
      } else {
        made.mutable_data<int64_t>()[i] = normal.Bit();
      }
    }
    CREASE_ASSIGN_OR_RETURN(inputs[graph.value(id).name], made.ConvertedTo(dtype));
  }
  return inputs;
}

}  // namespace crease
