// SPDX-License-Identifier: Apache-2.0
#include "tools/recalibrate_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

namespace crease::tools {
namespace {

namespace fs = std::filesystem;

Error DataError(const std::string& file, std::string message) {
  return Error{ErrorCode::kInvalidArgument, std::move(message), Printable(file)};
}

const Tensor* Find(const NamedTensors& arrays, std::string_view name) {
  for (const auto& [key, tensor] : arrays) {
    if (key == name) return &tensor;
  }
  return nullptr;
}

// Whether a row of `given` is a row of `want`, whose unknown dimensions are negative.
bool RowsFit(const Shape& given, const Shape& want) {
  if (given.size() != want.size() || given.empty()) return false;
  for (size_t axis = 1; axis < want.size(); ++axis) {
    if (want[axis] >= 0 && given[axis] != want[axis]) return false;
  }
  return true;
}

// The array of the input's name; for a network of one input else the only array that fits it.
Result<const Tensor*> Choose(const std::string& file, const NamedTensors& arrays, const TensorSpec& spec, bool single) {
  const Tensor* found = Find(arrays, spec.name);
  if (found != nullptr) return found;
  std::string given;
  int fitting = 0;
  for (const auto& [name, tensor] : arrays) {
    given += fmt::format("{}'{}' {} {}", given.empty() ? "" : ", ", Printable(name), Name(tensor.dtype()),
                         ToString(tensor.shape()));
    if (!RowsFit(tensor.shape(), spec.shape)) continue;
    found = &tensor;
    ++fitting;
  }
  if (single && fitting == 1) return found;
  return DataError(file,
                   fmt::format("expected an array '{}' of {}{}, found {}", Printable(spec.name), ToString(spec.shape),
                               single ? ", or one array that fits" : "", given.empty() ? "none" : given));
}

std::vector<double> Values(const Tensor* tensor) {
  std::vector<double> values;
  for (int64_t i = 0; tensor != nullptr && i < tensor->size(); ++i) values.push_back(tensor->AsDouble(i));
  return values;
}

// (x / 255 - mean) / std, rounded once.
Result<Tensor> NormalizeImages(const Tensor& images, const std::vector<double>& mean, const std::vector<double>& std) {
  CREASE_ASSIGN_OR_RETURN(Tensor result, Tensor::Allocate(DType::kFloat32, images.shape()));
  const int64_t channels = images.rank() > 1 ? images.dim(1) : 1;
  int64_t plane = 1;
  for (int axis = 2; axis < images.rank(); ++axis) plane *= images.dim(axis);
  for (int64_t i = 0; i < images.size(); ++i) {
    const auto channel = static_cast<size_t>(i / plane % channels);
    const double value = (images.AsDouble(i) / 255 - mean[mean.size() == 1 ? 0 : channel]);
    result.mutable_data<float>()[i] = static_cast<float>(value / std[std.size() == 1 ? 0 : channel]);
  }
  return result;
}

// In the type that the network wants. Errors: an element that it does not hold.
Result<Tensor> Converted(const Tensor& given, DType dtype) {
  CREASE_ASSIGN_OR_RETURN(Tensor result, given.ConvertedTo(dtype));
  for (int64_t i = 0; dtype != given.dtype() && i < given.size(); ++i) {
    const double from = given.AsDouble(i), to = result.AsDouble(i);
    if (IsFloat(dtype) ? std::isfinite(to) || !std::isfinite(from) : to == from) continue;
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} in row {} does not fit {}", from, i / (given.size() / given.dim(0)), Name(dtype)), ""};
  }
  return result;
}

Result<std::vector<std::string>> FilesOf(const std::string& path) {
  const auto known = [](const fs::path& file) { return file.extension() == ".npz" || file.extension() == ".npy"; };
  std::error_code error;
  if (!fs::exists(path, error)) return DataError(path, "no such file or folder");
  if (!fs::is_directory(path, error)) {
    if (!known(path)) return DataError(path, "expected a .npz or .npy file, or a folder of these");
    return std::vector<std::string>{path};
  }
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(path, error)) {
    if (known(entry.path())) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) return DataError(path, "no .npz or .npy file there");
  return files;
}

}  // namespace

Result<BatchReader> BatchReader::Open(const DataOptions& options, const std::vector<TensorSpec>& inputs) {
  BatchReader reader;
  reader.options_ = options;
  reader.inputs_ = inputs;
  CREASE_ASSIGN_OR_RETURN(reader.files_, FilesOf(options.path));
  return reader;
}

Result<Tensor> BatchReader::Prepare(const std::string& file, const NamedTensors& arrays, size_t input) const {
  const TensorSpec& spec = inputs_[input];
  CREASE_ASSIGN_OR_RETURN(const Tensor* given, Choose(file, arrays, spec, inputs_.size() == 1));
  if (!RowsFit(given->shape(), spec.shape)) {
    return DataError(file, fmt::format("array for input '{}': expected rows of {} (-1: any), found {}",
                                       Printable(spec.name), ToString(spec.shape), ToString(given->shape())));
  }
  if (IsFloat(given->dtype()) == IsFloat(spec.dtype)) {
    Result<Tensor> converted = Converted(*given, spec.dtype);
    if (converted.ok()) return converted;
    return DataError(file, fmt::format("array for input '{}': {}", Printable(spec.name), converted.error().message));
  }
  const std::vector<double> mean = options_.mean.empty() ? Values(Find(arrays, "mean")) : options_.mean;
  const std::vector<double> std = options_.std.empty() ? Values(Find(arrays, "std")) : options_.std;
  const auto channels = static_cast<size_t>(given->rank() > 1 ? given->dim(1) : 1);
  const auto fits = [&](const std::vector<double>& values) { return values.size() == 1 || values.size() == channels; };
  if (!IsFloat(spec.dtype) || !fits(mean) || !fits(std)) {
    return DataError(file, fmt::format("array for input '{}': expected {}, found {}; images of 0 to 255 need --mean "
                                       "and --std, or arrays of these names, with 1 or {} values",
                                       Printable(spec.name), Name(spec.dtype), Name(given->dtype()), channels));
  }
  CREASE_ASSIGN_OR_RETURN(const Tensor normalized, NormalizeImages(*given, mean, std));
  return normalized.ConvertedTo(spec.dtype);
}

Result<BatchReader::Block> BatchReader::ReadFile(const std::string& file) const {
  NamedTensors arrays;
  if (file.ends_with(".npz")) {
    CREASE_ASSIGN_OR_RETURN(arrays, ReadNpz(file));
  } else {
    CREASE_ASSIGN_OR_RETURN(Tensor array, ReadNpy(file));
    arrays.emplace_back(fs::path(file).stem().string(), std::move(array));
  }
  Block block;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    CREASE_ASSIGN_OR_RETURN(Tensor prepared, Prepare(file, arrays, i));
    const int64_t rows = prepared.dim(0);
    if (i > 0 && rows != block.rows) {
      return DataError(file, fmt::format("arrays for '{}' and '{}' have {} and {} rows", Printable(inputs_[0].name),
                                         Printable(inputs_[i].name), block.rows, rows));
    }
    block.rows = rows;
    block.arrays.push_back(std::move(prepared));
  }
  return block;
}

Result<bool> BatchReader::Fill() {
  while (block_.done == block_.rows && next_file_ < files_.size()) {
    CREASE_ASSIGN_OR_RETURN(block_, ReadFile(files_[next_file_++]));
  }
  return block_.done < block_.rows;
}

Result<std::vector<Shape>> BatchReader::NextShapes() {
  std::vector<Shape> shapes;
  CREASE_ASSIGN_OR_RETURN(const bool filled, Fill());
  for (size_t i = 0; filled && i < inputs_.size(); ++i) {
    shapes.push_back(block_.arrays[i].shape());
    shapes.back()[0] = 1;
  }
  return shapes;
}

Result<std::vector<Tensor>> BatchReader::Next(int64_t rows) {
  std::vector<Tensor> batch;
  std::vector<std::vector<std::byte>> joined(inputs_.size());
  std::vector<Shape> shapes;
  int64_t count = 0;
  while (count < rows) {
    CREASE_ASSIGN_OR_RETURN(const bool filled, Fill());
    if (!filled) break;
    const int64_t taken = std::min(rows - count, block_.rows - block_.done);
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const Tensor& array = block_.arrays[i];
      Shape shape = array.shape();
      shape[0] = 0;
      if (shapes.size() == i) shapes.push_back(shape);
      if (shapes[i] != shape) {
        return DataError(files_[next_file_ - 1],
                         fmt::format("rows of {} follow rows of {}", ToString(shape), ToString(shapes[i])));
      }
      const size_t row = array.byte_size() / static_cast<size_t>(block_.rows);
      const std::byte* from = array.bytes() + static_cast<size_t>(block_.done) * row;
      joined[i].insert(joined[i].end(), from, from + static_cast<size_t>(taken) * row);
    }
    block_.done += taken;
    count += taken;
  }
  if (count == 0) return batch;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    shapes[i][0] = count;
    CREASE_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(inputs_[i].dtype, shapes[i]));
    std::memcpy(tensor.mutable_data<std::byte>(), joined[i].data(), joined[i].size());
    batch.push_back(std::move(tensor));
  }
  return batch;
}

}  // namespace crease::tools
