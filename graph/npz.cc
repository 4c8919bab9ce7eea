// SPDX-License-Identifier: Apache-2.0
#include "graph/npz.h"

#include <minizip/unzip.h>
#include <minizip/zip.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string_view>

#include "graph/graph.h"

namespace crease {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";

struct NpyHeader {
  DType dtype = DType::kUndefined;
  bool fortran_order = false;
  Shape shape;
};

struct DTypeName {
  DType dtype;
  std::string_view npy;
};
constexpr DTypeName kDTypes[] = {
    {DType::kFloat32, "<f4"}, {DType::kFloat64, "<f8"}, {DType::kFloat16, "<f2"}, {DType::kInt8, "|i1"},
    {DType::kUint8, "|u1"},   {DType::kInt16, "<i2"},   {DType::kUint16, "<u2"},  {DType::kInt32, "<i4"},
    {DType::kUint32, "<u4"},  {DType::kInt64, "<i8"},   {DType::kUint64, "<u8"},  {DType::kBool, "|b1"},
};

Error Bad(std::string message, const std::string& where) {
  return Error{ErrorCode::kInvalidArgument, std::move(message), where};
}

// What follows `'key':` in the header's dictionary, without leading blanks.
std::string_view Field(std::string_view header, std::string_view key) {
  const size_t at = header.find("'" + std::string(key) + "'");
  if (at == std::string_view::npos) return {};
  const size_t colon = header.find(':', at);
  if (colon == std::string_view::npos) return {};
  const size_t start = header.find_first_not_of(' ', colon + 1);
  return start == std::string_view::npos ? std::string_view{} : header.substr(start);
}

Result<Shape> ParseShape(std::string_view text, const std::string& where) {
  const size_t close = text.find(')');
  if (text.empty() || text.front() != '(' || close == std::string_view::npos) {
    return Bad("the .npy header has no shape", where);
  }
  Shape shape;
  const char* at = text.data() + 1;
  const char* end = text.data() + close;
  while (at < end) {
    if (*at == ' ' || *at == ',') {
      ++at;
      continue;
    }
    int64_t dim = 0;
    const auto [next, error] = std::from_chars(at, end, dim);
    if (error != std::errc() || dim < 0) return Bad("the .npy header has a bad shape", where);
    shape.push_back(dim);
    at = next;
  }
  if (shape.size() > kMaxRank) {
    return Bad("rank " + std::to_string(shape.size()) + " is over the limit of " + std::to_string(kMaxRank), where);
  }
  return shape;
}

Result<NpyHeader> ParseHeader(std::string_view text, const std::string& where) {
  NpyHeader header;
  const std::string_view descr = Field(text, "descr");
  const std::string_view name = descr.size() > 4 ? descr.substr(1, 3) : std::string_view{};
  for (const DTypeName& known : kDTypes) {
    if (name == known.npy) header.dtype = known.dtype;
  }
  if (header.dtype == DType::kUndefined) {
    return Bad("dtype " + Printable(descr.substr(0, descr.find_first_of(",}"))) +
                   " is not supported: use little-endian floats, integers or bools",
               where);
  }
  header.fortran_order = Field(text, "fortran_order").substr(0, 4) == "True";
  CREASE_ASSIGN_OR_RETURN(header.shape, ParseShape(Field(text, "shape"), where));
  return header;
}

// From column-major to row-major.
Result<Tensor> FromFortran(const Tensor& src) {
  CREASE_ASSIGN_OR_RETURN(Tensor dst, Tensor::Allocate(src.dtype(), src.shape()));
  const size_t element = ByteSize(src.dtype());
  auto* out = const_cast<std::byte*>(dst.bytes());
  for (int64_t i = 0; i < src.size(); ++i) {
    int64_t rest = i, offset = 0, stride = src.size();
    for (int axis = src.rank() - 1; axis >= 0; --axis) {
      stride /= src.dim(axis);
      offset += rest % src.dim(axis) * stride;
      rest /= src.dim(axis);
    }
    std::copy_n(src.bytes() + static_cast<size_t>(offset) * element, element, out + static_cast<size_t>(i) * element);
  }
  return dst;
}

// Reads an array through `read(dst, count)`, which returns whether all bytes came.
template <typename Read>
Result<Tensor> ReadArray(Read read, const NpzOptions& options, const std::string& where) {
  unsigned char prefix[8];
  if (!read(prefix, sizeof(prefix)) || std::string_view(reinterpret_cast<char*>(prefix), kMagic.size()) != kMagic) {
    return Bad("not a .npy array", where);
  }
  unsigned char size_bytes[4] = {};
  const size_t size_width = prefix[6] == 1 ? 2 : 4;
  if (prefix[6] < 1 || prefix[6] > 3 || !read(size_bytes, size_width)) return Bad("unknown .npy version", where);
  const size_t header_size = size_bytes[0] | static_cast<size_t>(size_bytes[1]) << 8 |
                             static_cast<size_t>(size_bytes[2]) << 16 | static_cast<size_t>(size_bytes[3]) << 24;
  constexpr size_t kMaxHeader = 1 << 16;
  if (header_size > kMaxHeader) return Bad("the .npy header is too long", where);
  std::string text(header_size, '\0');
  if (!read(text.data(), header_size)) return Bad("the .npy header is cut short", where);
  CREASE_ASSIGN_OR_RETURN(NpyHeader header, ParseHeader(text, where));
  CREASE_ASSIGN_OR_RETURN(const int64_t count, ElementCount(header.shape));
  if (count > options.max_bytes / static_cast<int64_t>(ByteSize(header.dtype))) {
    return Error{ErrorCode::kLimitExceeded,
                 "an array of shape " + ToString(header.shape) + " is over the limit of " +
                     std::to_string(options.max_bytes) + " bytes",
                 where};
  }
  CREASE_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(header.dtype, header.shape));
  if (!read(const_cast<std::byte*>(tensor.bytes()), tensor.byte_size())) {
    return Bad("the data of shape " + ToString(header.shape) + " is cut short", where);
  }
  return header.fortran_order && tensor.rank() > 1 && count > 0 ? FromFortran(tensor) : Result<Tensor>(tensor);
}

// The bytes before an array's data: magic, version 1.0, a dictionary padded to 64 bytes.
std::string HeaderBytes(const Tensor& tensor) {
  std::string_view descr;
  for (const DTypeName& known : kDTypes) {
    if (known.dtype == tensor.dtype()) descr = known.npy;
  }
  std::string text = "{'descr': '" + std::string(descr) + "', 'fortran_order': False, 'shape': (";
  for (int64_t dim : tensor.shape()) text += std::to_string(dim) + ", ";
  if (tensor.rank() > 1) text.resize(text.size() - 2);
  if (tensor.rank() == 1) text.pop_back();
  text += "), }";
  constexpr size_t kPrefix = 10;
  while ((kPrefix + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  std::string bytes(kMagic);
  bytes += {'\x01', '\x00', static_cast<char>(text.size() & 0xFF), static_cast<char>(text.size() >> 8)};
  return bytes + text;
}

Result<Tensor> Writable(const Tensor& tensor) {
  return tensor.dtype() == DType::kBFloat16 ? tensor.ConvertedTo(DType::kFloat32) : Result<Tensor>(tensor);
}

std::string TemporaryBeside(const std::string& path) {
  return path + ".tmp" + std::to_string(static_cast<long>(::getpid()));
}

Result<void> MoveOver(const std::string& temporary, const std::string& path, bool written) {
  if (written && std::rename(temporary.c_str(), path.c_str()) == 0) return {};
  std::remove(temporary.c_str());
  return Error{ErrorCode::kIo, "cannot write the file", Printable(path)};
}

struct CloseUnzip {
  void operator()(void* file) const { unzClose(file); }
};

// zip entries take sizes up to 2^32 a call; larger arrays go in pieces of this.
constexpr size_t kPiece = size_t{1} << 30;

bool WriteEntry(zipFile zip, const std::string& name, const Tensor& tensor) {
  const std::string header = HeaderBytes(tensor);
  const zip_fileinfo info = {};  // time stamp 0: the same arrays give the same bytes
  const int zip64 = tensor.byte_size() + header.size() >= 0xFFFFFFFFu ? 1 : 0;
  // Python takes names for code page 437 without the flag, and refuses the archive if it is set on other bytes.
  constexpr uLong kNameIsUtf8 = 1 << 11;
  if (zipOpenNewFileInZip4_64(zip, (name + ".npy").c_str(), &info, nullptr, 0, nullptr, 0, nullptr, 0, 0, 0, -MAX_WBITS,
                              DEF_MEM_LEVEL, Z_DEFAULT_STRATEGY, nullptr, 0, 0, IsUtf8(name) ? kNameIsUtf8 : 0,
                              zip64) != ZIP_OK) {
    return false;
  }
  bool good = zipWriteInFileInZip(zip, header.data(), static_cast<unsigned>(header.size())) == ZIP_OK;
  for (size_t at = 0; good && at < tensor.byte_size(); at += kPiece) {
    const size_t count = std::min(kPiece, tensor.byte_size() - at);
    good = zipWriteInFileInZip(zip, tensor.bytes() + at, static_cast<unsigned>(count)) == ZIP_OK;
  }
  return zipCloseFileInZip(zip) == ZIP_OK && good;
}

}  // namespace

Result<Tensor> ReadNpy(const std::string& path, const NpzOptions& options) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{ErrorCode::kIo, "cannot open the file", Printable(path)};
  const auto read = [&](void* dst, size_t count) {
    file.read(static_cast<char*>(dst), static_cast<std::streamsize>(count));
    return file.gcount() == static_cast<std::streamsize>(count);
  };
  return ReadArray(read, options, Printable(path));
}

// An archive of no arrays is but a record of its end, which minizip does not take for one.
bool IsEmptyArchive(const std::string& path) {
  constexpr std::string_view kEnd = "PK\5\6";
  std::array<char, 23> bytes{};
  std::ifstream file(path, std::ios::binary);
  file.read(bytes.data(), bytes.size());
  return file.gcount() == 22 && std::string_view(bytes.data(), kEnd.size()) == kEnd;
}

Result<NamedTensors> ReadNpz(const std::string& path, const NpzOptions& options) {
  if (::access(path.c_str(), R_OK) != 0) return Error{ErrorCode::kIo, "cannot open the file", Printable(path)};
  const std::unique_ptr<void, CloseUnzip> zip(unzOpen64(path.c_str()));
  NamedTensors tensors;
  if (zip == nullptr && IsEmptyArchive(path)) return tensors;
  if (zip == nullptr) return Bad("not a .npz file (no zip archive)", Printable(path));
  for (int at = unzGoToFirstFile(zip.get()); at == UNZ_OK; at = unzGoToNextFile(zip.get())) {
    char buffer[1024];
    unz_file_info64 info = {};
    const Error damaged = Bad("the archive is damaged", Printable(path));
    if (unzGetCurrentFileInfo64(zip.get(), &info, buffer, sizeof(buffer), nullptr, 0, nullptr, 0) != UNZ_OK) {
      return damaged;
    }
    buffer[sizeof(buffer) - 1] = '\0';
    std::string name(buffer);
    if (name.ends_with(".npy")) name.resize(name.size() - 4);
    if (options.wanted && !options.wanted(name)) continue;
    const std::string where = Printable(path) + ": " + Printable(name);
    if (info.compression_method != 0 && info.compression_method != Z_DEFLATED) {
      return Bad(
          "compressed by method " + std::to_string(info.compression_method) + ", expected stored (0) or deflated (8)",
          where);
    }
    if (unzOpenCurrentFile(zip.get()) != UNZ_OK) return damaged;
    const auto read = [&](void* dst, size_t count) {
      auto* out = static_cast<std::byte*>(dst);
      while (count > 0) {
        const auto want = static_cast<unsigned>(std::min(count, kPiece));
        const int got = unzReadCurrentFile(zip.get(), out, want);
        if (got <= 0) return false;
        out += got;
        count -= static_cast<size_t>(got);
      }
      return true;
    };
    CREASE_ASSIGN_OR_RETURN(Tensor tensor, ReadArray(read, options, where));
    if (unzCloseCurrentFile(zip.get()) != UNZ_OK) {
      return Bad("the checksum does not match the data", where);
    }
    tensors.emplace_back(std::move(name), std::move(tensor));
  }
  return tensors;
}

Result<void> WriteNpy(const std::string& path, const Tensor& tensor) {
  CREASE_ASSIGN_OR_RETURN(const Tensor writable, Writable(tensor));
  const std::string temporary = TemporaryBeside(path);
  std::ofstream file(temporary, std::ios::binary);
  const std::string header = HeaderBytes(writable);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  file.write(reinterpret_cast<const char*>(writable.bytes()), static_cast<std::streamsize>(writable.byte_size()));
  file.close();
  return MoveOver(temporary, path, static_cast<bool>(file));
}

Result<void> WriteNpz(const std::string& path, const NamedTensors& tensors) {
  const std::string temporary = TemporaryBeside(path);
  const zipFile zip = zipOpen64(temporary.c_str(), APPEND_STATUS_CREATE);
  if (zip == nullptr) return Error{ErrorCode::kIo, "cannot write the file", Printable(path)};
  bool good = true;
  for (const auto& [name, tensor] : tensors) {
    Result<Tensor> writable = Writable(tensor);
    good = good && writable.ok() && WriteEntry(zip, name, *writable);
  }
  good = zipClose(zip, nullptr) == ZIP_OK && good;
  return MoveOver(temporary, path, good);
}

}  // namespace crease
