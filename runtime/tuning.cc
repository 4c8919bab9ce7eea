// SPDX-License-Identifier: Apache-2.0
#include "runtime/tuning.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "graph/atomic_file.h"
#include "kernels/targets.h"

namespace crease {
namespace {

constexpr std::string_view kFormat = "crease-tuning 1";
constexpr std::string_view kChecksum = "checksum ";
constexpr std::string_view kAnyKey = "*";
constexpr size_t kMaxFileBytes = size_t{64} << 20;

std::string Hex(uint64_t value) {
  std::array<char, 16> digits;
  digits.fill('0');
  std::array<char, 16> text;
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value, 16);
  const size_t count = static_cast<size_t>(end - text.data());
  std::memcpy(digits.data() + digits.size() - count, text.data(), count);
  return {digits.data(), digits.size()};
}

std::string HashOf(std::string_view text) { return Hex(XXH3_64bits(text.data(), text.size())); }

// The first CPU's entries of /proc/cpuinfo that tell models apart; a frequency is none of them.
std::string CpuModel() {
  static constexpr std::string_view kFields[] = {"vendor_id", "cpu family",      "model",    "model name",
                                                 "stepping",  "CPU implementer", "CPU part", "CPU variant"};
  std::ifstream file("/proc/cpuinfo");
  std::string model;
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t name_end = line.find_last_not_of(" \t", colon - 1);
    const std::string_view name = std::string_view(line).substr(0, name_end + 1);
    for (const std::string_view field : kFields) {
      if (name == field) model += (model.empty() ? "" : ",") + line.substr(std::min(colon + 2, line.size()));
    }
  }
  return model;
}

std::string Header(int threads) {
  static const std::string cpu = CpuModel();
  std::string text(kFormat);
  text += "\nversion " CREASE_VERSION "\ncpu " + cpu + "\ntarget " + TargetName();
  return text + "\nthreads " + std::to_string(threads) + "\n";
}

Error Unusable(std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message), ""}; }

Error SystemError(const char* what, const std::string& path) {
  return Error{ErrorCode::kIo, std::string(what) + ": " + std::strerror(errno), "file '" + Printable(path) + "'"};
}

// Held until the object goes; the kernel frees it when the process dies.
class FileLock {
 public:
  static Result<FileLock> Take(const std::string& path) {
    FileLock lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (lock.fd_ < 0) return SystemError("can't open the lock", path);
    while (::flock(lock.fd_, LOCK_EX) != 0) {
      if (errno != EINTR) return SystemError("can't lock", path);
    }
    return lock;
  }
  FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace

std::string_view Tuning::Find(std::string_view key) const {
  const auto found = kernels_.find(key);
  return found == kernels_.end() ? std::string_view(default_) : std::string_view(found->second);
}

void Tuning::Merge(const Tuning& other) {
  for (const auto& [key, kernel] : other.kernels_) kernels_[key] = kernel;
  if (!other.default_.empty()) default_ = other.default_;
}

std::string Tuning::Serialize(int threads) const {
  std::string text = Header(threads);
  if (!default_.empty()) text.append(kAnyKey).append("\t").append(default_).append("\n");
  for (const auto& [key, kernel] : kernels_) text.append(key).append("\t").append(kernel).append("\n");
  const std::string hash = HashOf(text);
  return text.append(kChecksum).append(hash).append("\n");
}

Result<Tuning> Tuning::Parse(std::string_view text, int threads) {
  const std::string header = Header(threads);
  const size_t tail = kChecksum.size() + 16 + 1;
  if (!text.starts_with(kFormat)) return Unusable("not a tuning file");
  if (!text.starts_with(header)) return Unusable("of another machine, version or thread count");
  if (text.size() < header.size() + tail) return Unusable("cut short");
  const std::string_view body = text.substr(0, text.size() - tail);
  std::string expected(kChecksum);
  expected += HashOf(body) + "\n";
  if (text.substr(body.size()) != expected) return Unusable("its checksum does not match");
  Tuning tuning;
  for (std::string_view rest = body.substr(header.size()); !rest.empty();) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    const size_t tab = line.find('\t');
    if (end == std::string_view::npos || tab == std::string_view::npos) return Unusable("a line without a tab");
    const std::string_view key = line.substr(0, tab), kernel = line.substr(tab + 1);
    if (key == kAnyKey) {
      tuning.default_ = kernel;
    } else {
      tuning.Set(std::string(key), std::string(kernel));
    }
    rest.remove_prefix(end + 1);
  }
  return tuning;
}

namespace {

// "strides 1,1"; the name alone where the value is a tensor or a graph.
std::string AttributeText(const Attribute& attribute) {
  std::ostringstream text;
  text << attribute.name;
  const auto list = [&](const auto& values) {
    for (size_t i = 0; i < values.size(); ++i) text << (i == 0 ? " " : ",") << values[i];
  };
  if (const auto* value = std::get_if<int64_t>(&attribute.data)) text << ' ' << *value;
  if (const auto* value = std::get_if<float>(&attribute.data)) text << ' ' << *value;
  if (const auto* value = std::get_if<std::string>(&attribute.data)) text << ' ' << Printable(*value);
  if (const auto* values = std::get_if<std::vector<int64_t>>(&attribute.data)) list(*values);
  if (const auto* values = std::get_if<std::vector<float>>(&attribute.data)) list(*values);
  return text.str();
}

}  // namespace

std::string TuningKey(const Program& program, const ProgramOp& op) {
  std::string key(op.type());
  for (const ValueId id : op.node.inputs) {
    if (id == kNone) continue;
    key += program.constant(id) ? " const" : " ";
    key += ToString(program.value(id).shape);
  }
  std::vector<std::string> attributes;
  for (const Attribute& attribute : op.node.attributes) attributes.push_back(AttributeText(attribute));
  std::sort(attributes.begin(), attributes.end());
  for (const std::string& attribute : attributes) key += " " + attribute;
  if (op.prologue.scale.defined()) key += std::string(" after affine ") + Name(op.prologue.activation);
  if (op.epilogue.residual == Residual::kBeforeActivation) key += " + residual";
  if (op.epilogue.activation != Activation::kNone) key += std::string(" ") + Name(op.epilogue.activation);
  if (op.epilogue.residual == Residual::kAfterActivation) key += " + residual";
  return key;
}

Tuning LoadTuning(const std::string& path, int threads, std::string* why) {
  const auto nothing = [&](const std::string& reason) {
    if (why) *why = reason;
    return Tuning();
  };
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error) return nothing(error.message());
  if (bytes > kMaxFileBytes) return nothing("too large");
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return nothing("can't be read");
  Result<Tuning> tuning = Tuning::Parse(text.str(), threads);
  return tuning.ok() ? std::move(tuning).value() : nothing(tuning.error().message);
}

Result<void> UpdateTuning(const std::string& path, int threads, const Tuning& measured) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return Error{ErrorCode::kIo, error.message(), "folder '" + Printable(folder.string()) + "'"};
  CREASE_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(path + ".lock"));
  Tuning merged = LoadTuning(path, threads);
  merged.Merge(measured);
  CREASE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  const std::string text = merged.Serialize(threads);
  CREASE_RETURN_IF_ERROR(file.Write(std::as_bytes(std::span(text))));
  return file.Commit();
}

std::string DefaultTuningFile(int threads) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value ? value : "");
  };
  std::filesystem::path folder = variable("CREASE_CACHE_DIR");
  if (folder.empty() && !variable("XDG_CACHE_HOME").empty()) folder = variable("XDG_CACHE_HOME") / "crease";
  if (folder.empty() && !variable("HOME").empty()) folder = variable("HOME") / ".cache" / "crease";
  if (folder.empty()) return "";
  return (folder / "tuning" / (HashOf(Header(threads)) + ".txt")).string();
}

}  // namespace crease
