// SPDX-License-Identifier: Apache-2.0
#include "graph/safetensors.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

#include "graph/atomic_file.h"
#include "graph/graph.h"

namespace crease {
namespace {

struct DTypeName {
  DType dtype;
  std::string_view name;
};
constexpr DTypeName kDTypes[] = {
    {DType::kFloat32, "F32"}, {DType::kFloat64, "F64"}, {DType::kFloat16, "F16"}, {DType::kBFloat16, "BF16"},
    {DType::kInt8, "I8"},     {DType::kUint8, "U8"},    {DType::kInt16, "I16"},   {DType::kUint16, "U16"},
    {DType::kInt32, "I32"},   {DType::kUint32, "U32"},  {DType::kInt64, "I64"},   {DType::kUint64, "U64"},
    {DType::kBool, "BOOL"},
};
constexpr int64_t kMaxHeader = 100'000'000;  // as in the format's own implementation
constexpr int kMaxNesting = 32;

// The part of JSON that headers use; every function leaves `at` after what it read, or reports failure.
class Json {
 public:
  explicit Json(std::string_view text) : text_(text) {}

  void SkipBlanks() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  bool Take(char c) {
    SkipBlanks();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool AtEnd() {
    SkipBlanks();
    return at_ == text_.size();
  }
  std::optional<std::string> String() {
    if (!Take('"')) return std::nullopt;
    std::string value;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"') return value;
      if (c != '\\') {
        value += c;
      } else if (!Escape(&value)) {
        return std::nullopt;
      }
    }
    return std::nullopt;
  }
  std::optional<int64_t> Integer() {
    SkipBlanks();
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc()) return std::nullopt;
    at_ = static_cast<size_t>(end - text_.data());
    return value;
  }
  std::optional<std::vector<int64_t>> Integers() {
    if (!Take('[')) return std::nullopt;
    std::vector<int64_t> values;
    if (Take(']')) return values;
    do {
      const auto value = Integer();
      if (!value) return std::nullopt;
      values.push_back(*value);
    } while (Take(','));
    if (!Take(']')) return std::nullopt;
    return values;
  }
  // Any value, not kept.
  bool Skip(int depth = 0) {
    if (depth > kMaxNesting) return false;
    SkipBlanks();
    if (at_ >= text_.size()) return false;
    const char c = text_[at_];
    if (c == '"') return String().has_value();
    if (c == '{' || c == '[') {
      const char close = c == '{' ? '}' : ']';
      ++at_;
      if (Take(close)) return true;
      do {
        if (c == '{' && !(String() && Take(':'))) return false;
        if (!Skip(depth + 1)) return false;
      } while (Take(','));
      return Take(close);
    }
    const size_t end = std::min(text_.find_first_of(",}] \t\r\n", at_), text_.size());
    const bool any = end > at_;
    at_ = end;
    return any;
  }

 private:
  bool Escape(std::string* value) {
    if (at_ >= text_.size()) return false;
    const char c = text_[at_++];
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) {
      *value += kTo[i];
      return true;
    }
    uint32_t code = 0;
    if (c != 'u' || at_ + 4 > text_.size()) return false;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16);
    if (error != std::errc() || end != text_.data() + at_ + 4) return false;
    at_ += 4;
    if (code < 0x80) {
      *value += static_cast<char>(code);
    } else if (code < 0x800) {
      *value += {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
    } else {
      *value += {static_cast<char>(0xE0 | (code >> 12)), static_cast<char>(0x80 | ((code >> 6) & 63)),
                 static_cast<char>(0x80 | (code & 63))};
    }
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

Error Bad(std::string message, const std::string& where) {
  return Error{ErrorCode::kInvalidArgument, std::move(message), where};
}

struct Entry {
  DType dtype = DType::kUndefined;
  std::string dtype_name;
  Shape shape;
  std::vector<int64_t> offsets;
};

std::optional<Entry> ReadEntry(Json& json) {
  Entry entry;
  if (!json.Take('{')) return std::nullopt;
  do {
    const auto key = json.String();
    if (!key || !json.Take(':')) return std::nullopt;
    if (*key == "dtype") {
      const auto name = json.String();
      if (!name) return std::nullopt;
      entry.dtype_name = *name;
      for (const DTypeName& known : kDTypes) {
        if (known.name == *name) entry.dtype = known.dtype;
      }
    } else if (*key == "shape" || *key == "data_offsets") {
      auto values = json.Integers();
      if (!values) return std::nullopt;
      (*key == "shape" ? entry.shape : entry.offsets) = std::move(*values);
    } else if (!json.Skip()) {
      return std::nullopt;
    }
  } while (json.Take(','));
  return json.Take('}') ? std::optional<Entry>(std::move(entry)) : std::nullopt;
}

Result<Tensor> ReadTensor(std::ifstream& file, int64_t data_start, int64_t data_size, const Entry& entry,
                          const NpzOptions& options, const std::string& where) {
  if (entry.dtype == DType::kUndefined)
    return Bad("dtype '" + Printable(entry.dtype_name) + "' is not supported", where);
  CREASE_ASSIGN_OR_RETURN(const int64_t count, ElementCount(entry.shape));
  const auto size = static_cast<int64_t>(ByteSize(entry.dtype));
  if (entry.offsets.size() != 2 || entry.offsets[0] < 0 || entry.offsets[0] > entry.offsets[1] ||
      entry.offsets[1] > data_size) {
    return Bad("data_offsets outside the file", where);
  }
  const int64_t bytes = entry.offsets[1] - entry.offsets[0];
  if (bytes > options.max_bytes) return Error{ErrorCode::kLimitExceeded, "a larger array than allowed", where};
  if (count > bytes || count * size != bytes) return Bad("data_offsets and shape disagree", where);
  CREASE_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(entry.dtype, entry.shape));
  file.seekg(data_start + entry.offsets[0]);
  if (bytes > 0 && !file.read(reinterpret_cast<char*>(tensor.mutable_data<std::byte>()), bytes)) {
    return Error{ErrorCode::kIo, "cannot read", where};
  }
  return tensor;
}

void AppendQuoted(std::string* text, const std::string& value) {
  *text += '"';
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      *text += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr char kHex[] = "0123456789abcdef";
      *text += "\\u00";
      *text += {kHex[(c >> 4) & 15], kHex[c & 15]};
    } else {
      *text += c;
    }
  }
  *text += '"';
}

void AppendList(std::string* text, std::span<const int64_t> values) {
  *text += '[';
  for (size_t i = 0; i < values.size(); ++i) *text += (i > 0 ? "," : "") + std::to_string(values[i]);
  *text += ']';
}

}  // namespace

Result<NamedTensors> ReadSafetensors(const std::string& path, const NpzOptions& options) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return Error{ErrorCode::kIo, "cannot open", path};
  const auto file_size = static_cast<int64_t>(file.tellg());
  uint64_t length = 0;
  file.seekg(0);
  if (file_size < 8 || !file.read(reinterpret_cast<char*>(&length), 8)) return Bad("no .safetensors file", path);
  if (length > static_cast<uint64_t>(std::min(kMaxHeader, file_size - 8))) return Bad("the header is truncated", path);
  std::string header(length, '\0');
  if (!file.read(header.data(), static_cast<std::streamsize>(length))) return Bad("the header is truncated", path);
  const int64_t data_start = 8 + static_cast<int64_t>(length);
  NamedTensors tensors;
  Json json(header);
  const Error bad_header = Bad("the header is not the expected JSON", path);
  if (!json.Take('{')) return bad_header;
  if (json.Take('}')) return tensors;
  do {
    const auto name = json.String();
    if (!name || !json.Take(':')) return bad_header;
    if (*name == "__metadata__") {
      if (!json.Skip()) return bad_header;
      continue;
    }
    const auto entry = ReadEntry(json);
    if (!entry) return bad_header;
    if (options.wanted && !options.wanted(*name)) continue;
    CREASE_ASSIGN_OR_RETURN(Tensor tensor,
                            ReadTensor(file, data_start, file_size - data_start, *entry, options, path + ": " + *name));
    tensors.emplace_back(*name, std::move(tensor));
  } while (json.Take(','));
  if (!json.Take('}') || !json.AtEnd()) return bad_header;
  return tensors;
}

Result<void> WriteSafetensors(const std::string& path, const NamedTensors& tensors) {
  std::string header = "{";
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    if (header.size() > 1) header += ',';
    AppendQuoted(&header, name);
    std::string_view dtype;
    for (const DTypeName& known : kDTypes) {
      if (known.dtype == tensor.dtype()) dtype = known.name;
    }
    if (dtype.empty()) return Bad("undefined tensor", path + ": " + name);
    const int64_t end = offset + static_cast<int64_t>(tensor.byte_size());
    header += ":{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":";
    AppendList(&header, tensor.shape());
    header += ",\"data_offsets\":";
    AppendList(&header, std::vector<int64_t>{offset, end});
    header += '}';
    offset = end;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');  // so that the data is aligned
  const uint64_t length = header.size();
  CREASE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  CREASE_RETURN_IF_ERROR(file.Write(std::as_bytes(std::span(&length, 1))));
  CREASE_RETURN_IF_ERROR(file.Write(std::as_bytes(std::span(header))));
  for (const auto& [name, tensor] : tensors) {
    CREASE_RETURN_IF_ERROR(file.Write({tensor.bytes(), tensor.byte_size()}));
  }
  return file.Commit();
}

}  // namespace crease
