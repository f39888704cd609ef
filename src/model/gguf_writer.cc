#include "model/gguf_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <type_traits>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/file.h"
#include "common/random.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr uint32_t kVersion = 3;
constexpr uint8_t kZeros[kGgufAlignment] = {};

// GGUF's numbers of value types.
template <class T>
constexpr uint32_t TypeOf() {
  if constexpr (std::is_same_v<T, uint32_t>) return 4;
  if constexpr (std::is_same_v<T, int32_t>) return 5;
  if constexpr (std::is_same_v<T, float>) return 6;
  if constexpr (std::is_same_v<T, bool>) return 7;
  if constexpr (std::is_same_v<T, uint64_t>) return 10;
  if constexpr (std::is_same_v<T, int64_t>) return 11;
  if constexpr (std::is_same_v<T, double>) return 12;
}
constexpr uint32_t kString = 8, kArray = 9;

template <class Wide>
struct NarrowOf;
template <>
struct NarrowOf<uint64_t> {
  using Type = uint32_t;
};
template <>
struct NarrowOf<int64_t> {
  using Type = int32_t;
};
template <>
struct NarrowOf<double> {
  using Type = float;
};

template <class Wide>
bool FitsNarrow(Wide value) {
  using Narrow = typename NarrowOf<Wide>::Type;
  if constexpr (std::is_same_v<Wide, double>) {
    return !(value == value) || static_cast<double>(static_cast<float>(value)) == value;
  } else {
    return value >= std::numeric_limits<Narrow>::min() &&
           value <= std::numeric_limits<Narrow>::max();
  }
}

uint64_t Padding(uint64_t size) {
  return (kGgufAlignment - size % kGgufAlignment) % kGgufAlignment;
}

// Little-endian, as the machines that we run on are.
class Bytes {
 public:
  template <class T>
  void Number(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out_.append(bytes, sizeof value);
  }
  void Text(absl::string_view text) {
    Number<uint64_t>(text.size());
    out_.append(text.data(), text.size());
  }

  void Value(const MetadataValue& value) {
    std::visit([this](const auto& v) { Write(v); }, value);
  }

  std::string Take() {
    out_.resize(out_.size() + Padding(out_.size()), '\0');
    return std::move(out_);
  }

 private:
  template <class T>
  void Typed(T value) {
    Number(TypeOf<T>());
    Number(value);
  }
  void Write(bool value) {
    Number(TypeOf<bool>());
    Number<uint8_t>(value ? 1 : 0);
  }
  template <class Wide>
  void Write(Wide value) {
    using Narrow = typename NarrowOf<Wide>::Type;
    if (FitsNarrow(value)) {
      Typed(static_cast<Narrow>(value));
    } else {
      Typed(value);
    }
  }
  void Write(absl::string_view text) {
    Number(kString);
    Text(text);
  }
  void Write(const MetadataArray& array) {
    Number(kArray);
    if (const auto* strings = std::get_if<std::vector<absl::string_view>>(&array.values)) {
      Number(kString);
      Number<uint64_t>(strings->size());
      for (const absl::string_view text : *strings) Text(text);
      return;
    }
    std::visit([this](const auto& numbers) { Elements(numbers); },
               std::get<MetadataArray::Numbers>(array.values));
  }
  void Elements(const std::vector<bool>& values) {
    Number(TypeOf<bool>());
    Number<uint64_t>(values.size());
    for (const bool value : values) Number<uint8_t>(value ? 1 : 0);
  }
  template <class Wide>
  void Elements(const std::vector<Wide>& values) {
    using Narrow = typename NarrowOf<Wide>::Type;
    const bool narrow = std::all_of(values.begin(), values.end(), FitsNarrow<Wide>);
    Number(narrow ? TypeOf<Narrow>() : TypeOf<Wide>());
    Number<uint64_t>(values.size());
    for (const Wide value : values) {
      if (narrow) {
        Number(static_cast<Narrow>(value));
      } else {
        Number(value);
      }
    }
  }

  std::string out_;
};

}  // namespace

GgufMetadata MetadataOf(const ModelFile& file) {
  GgufMetadata metadata;
  metadata.reserve(file.values().size());
  for (const auto& [key, value] : file.values()) {
    if (key == "general.alignment" || absl::StartsWith(key, "split.")) continue;
    metadata.emplace_back(key, value);
  }
  std::sort(metadata.begin(), metadata.end(), [](const auto& a, const auto& b) {
    const bool general_a = absl::StartsWith(a.first, "general.");
    const bool general_b = absl::StartsWith(b.first, "general.");
    return general_a != general_b ? general_a : a.first < b.first;
  });
  return metadata;
}

std::string GgufHeader(const GgufMetadata& metadata, absl::Span<const GgufTensor> tensors) {
  Bytes out;
  out.Number<uint32_t>(0x46554747);  // "GGUF"
  out.Number(kVersion);
  out.Number<uint64_t>(tensors.size());
  out.Number<uint64_t>(metadata.size());
  for (const auto& [key, value] : metadata) {
    out.Text(key);
    out.Value(value);
  }
  uint64_t offset = 0;
  for (const GgufTensor& tensor : tensors) {
    out.Text(tensor.name);
    out.Number(static_cast<uint32_t>(tensor.shape.size()));
    for (const uint64_t size : tensor.shape) out.Number(size);
    out.Number(tensor.gguf_type);
    out.Number(offset);
    offset += tensor.bytes + Padding(tensor.bytes);
  }
  return out.Take();
}

uint64_t GgufFileBytes(const GgufMetadata& metadata, absl::Span<const GgufTensor> tensors) {
  uint64_t bytes = GgufHeader(metadata, tensors).size();
  for (const GgufTensor& tensor : tensors) bytes += tensor.bytes + Padding(tensor.bytes);
  return bytes;
}

GgufWriter::GgufWriter(std::string path, std::string temporary, int fd,
                       std::vector<GgufTensor> tensors)
    : path_(std::move(path)),
      temporary_(std::move(temporary)),
      fd_(fd),
      tensors_(std::move(tensors)) {}

GgufWriter::~GgufWriter() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

absl::StatusOr<std::unique_ptr<GgufWriter>> GgufWriter::Create(const std::string& path,
                                                               const GgufMetadata& metadata,
                                                               std::vector<GgufTensor> tensors) {
  const std::string temporary =
      absl::StrCat(path, ".", absl::BytesToHexString(SecureRandomBytes(6)));
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "create", temporary);
  std::unique_ptr<GgufWriter> writer(new GgufWriter(path, temporary, fd, std::move(tensors)));
  const std::string header = GgufHeader(metadata, writer->tensors_);
  RETURN_IF_ERROR(writer->Write({reinterpret_cast<const uint8_t*>(header.data()), header.size()}));
  return writer;
}

absl::Status GgufWriter::Write(absl::Span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "write", temporary_);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status GgufWriter::Append(absl::Span<const uint8_t> bytes) {
  if (bytes.empty()) return absl::OkStatus();
  CHECK(fd_ >= 0 && tensor_ < tensors_.size());
  const uint64_t size = tensors_[tensor_].bytes;
  CHECK(bytes.size() <= size - written_);
  RETURN_IF_ERROR(Write(bytes));
  written_ += bytes.size();
  if (written_ < size) return absl::OkStatus();
  ++tensor_;
  written_ = 0;
  return Write(absl::MakeConstSpan(kZeros, Padding(size)));
}

absl::Status GgufWriter::Finish() {
  CHECK(fd_ >= 0 && tensor_ == tensors_.size());
  if (fsync(fd_) != 0) return ErrnoStatus(errno, "fsync", temporary_);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "rename", path_);
  close(fd_);
  fd_ = -1;
  const std::string folder = std::filesystem::path(path_).parent_path().string();
  const int folder_fd =
      open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd < 0) return ErrnoStatus(errno, "open", folder);
  const absl::Cleanup closer = [folder_fd] { close(folder_fd); };
  if (fsync(folder_fd) != 0) return ErrnoStatus(errno, "fsync", folder);
  return absl::OkStatus();
}

}  // namespace efedllm
