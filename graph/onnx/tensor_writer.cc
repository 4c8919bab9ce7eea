// SPDX-License-Identifier: Apache-2.0
#include "graph/onnx/tensor_writer.h"

#include <xxhash.h>

#include <memory>

#include "graph/onnx/schema.h"

namespace crease::onnx {
namespace {

// Smaller tensors stay in the model, as ONNX's own tools do.
constexpr size_t kLeastExternalBytes = 1024;

// Large tensors begin on a page, so that readers can map them; small ones on a cache line.
constexpr int64_t kPageAlignment = 4096, kLineAlignment = 64;
constexpr size_t kLargeBytes = size_t{1} << 20;

bool IsDataField(uint32_t number) {
  switch (number) {
    case kTensorFloatData:
    case kTensorInt32Data:
    case kTensorStringData:
    case kTensorInt64Data:
    case kTensorRawData:
    case kTensorDoubleData:
    case kTensorUint64Data:
    case kTensorExternalData:
    case kTensorDataLocation:
      return true;
    default:
      return false;
  }
}

void AppendEntry(std::string_view key, std::string_view value, ByteRope* dst) {
  ByteRope entry;
  entry.String(kEntryKey, key);
  entry.String(kEntryValue, value);
  dst->Message(kTensorExternalData, std::move(entry));
}

}  // namespace

int64_t ExternalLayout::Place(const Tensor& tensor) {
  const auto [at, added] = placed_.try_emplace({tensor.bytes(), tensor.byte_size()}, 0);
  if (!added) return at->second;
  const int64_t alignment = tensor.byte_size() >= kLargeBytes ? kPageAlignment : kLineAlignment;
  at->second = (end_ + alignment - 1) / alignment * alignment;
  end_ = at->second + static_cast<int64_t>(tensor.byte_size());
  tensors_.emplace_back(tensor, at->second);
  return at->second;
}

Result<uint64_t> ExternalLayout::WriteTo(AtomicFile* file) const {
  static constexpr std::byte kZeros[kPageAlignment] = {};
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash(XXH3_createState(), XXH3_freeState);
  if (hash == nullptr) return Error{ErrorCode::kOutOfMemory, "no memory for a checksum", ""};
  XXH3_64bits_reset(hash.get());
  int64_t at = 0;
  const auto write = [&](ByteSpan bytes) -> Result<void> {
    XXH3_64bits_update(hash.get(), bytes.data(), bytes.size());
    at += static_cast<int64_t>(bytes.size());
    return file->Write(bytes);
  };
  for (const auto& [tensor, offset] : tensors_) {
    CREASE_RETURN_IF_ERROR(write(ByteSpan(kZeros, static_cast<size_t>(offset - at))));
    CREASE_RETURN_IF_ERROR(write(ByteSpan(tensor.bytes(), tensor.byte_size())));
  }
  return static_cast<uint64_t>(XXH3_64bits_digest(hash.get()));
}

void TensorWriter::Append(const Tensor& tensor, std::string_view name, ByteSpan raw, ByteRope* dst) const {
  bool external = placement == Placement::kAllExternal;
  if (placement == Placement::kAsInput) external = raw.empty() || IsExternal(raw);
  external = external && tensor.byte_size() >= kLeastExternalBytes;
  if (raw.empty()) {
    for (int64_t dim : tensor.shape()) dst->Int(kTensorDims, dim);
    dst->Int(kTensorDataType, OnnxFromDType(tensor.dtype()));
    if (!name.empty()) dst->String(kTensorName, name);
  } else {
    dst->CopyFields(raw, [](uint32_t number) { return !IsDataField(number); });
  }
  if (!external) return dst->BytesView(kTensorRawData, {tensor.bytes(), tensor.byte_size()});
  AppendEntry("location", location, dst);
  AppendEntry("offset", std::to_string(layout->Place(tensor)), dst);
  AppendEntry("length", std::to_string(tensor.byte_size()), dst);
  dst->Int(kTensorDataLocation, 1);
}

bool IsExternal(ByteSpan tensor_message) {
  bool external = false;
  WireReader reader(tensor_message, tensor_message.data());
  for (Field field; reader.Next(&field);) {
    if (field.number == kTensorDataLocation) external = field.scalar == 1;
  }
  return external;
}

}  // namespace crease::onnx
