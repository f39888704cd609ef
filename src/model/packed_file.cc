#include "model/packed_file.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "layers/packed_matrix.h"
#include "model/weights.h"

namespace efedllm {
namespace {

constexpr size_t kPieceBytes = 4u << 20;

struct Header {
  std::array<char, 8> magic = {'e', 'F', 'e', 'd', 'L', 'L', 'M', 'w'};
  uint32_t layout = kPackedLayoutVersion;
  uint32_t dtype = 0;
  uint64_t rows = 0;
  uint64_t cols = 0;
  uint64_t bytes = 0;
  uint64_t xxh3 = 0;
  uint64_t zero[2] = {0, 0};
};
static_assert(sizeof(Header) == kPackedFileHeaderBytes);

Header HeaderOf(const TensorSpec& spec, uint64_t xxh3) {
  Header header;
  header.dtype = static_cast<uint32_t>(spec.dtype);
  header.rows = spec.rows;
  header.cols = spec.cols;
  header.bytes = PackedBytes(spec);
  header.xxh3 = xxh3;
  return header;
}

absl::Status WriteAt(int fd, const void* data, size_t size, uint64_t offset,
                     const std::string& path) {
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = pwrite(fd, next, size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "write", path);
    next += written;
    offset += static_cast<uint64_t>(written);
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

// Writes the packed form behind the header, never holding more than a piece of it.
absl::StatusOr<uint64_t> WriteData(int fd, const TensorSpec& spec, absl::Span<const uint8_t> gguf,
                                   const std::string& path) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              XXH3_freeState);
  CHECK(state != nullptr && XXH3_64bits_reset(state.get()) == XXH_OK);
  if (spec.rows == 1) {
    XXH3_64bits_update(state.get(), gguf.data(), gguf.size());
    RETURN_IF_ERROR(WriteAt(fd, gguf.data(), gguf.size(), kPackedFileHeaderBytes, path));
    return XXH3_64bits_digest(state.get());
  }
  const uint64_t group_bytes = PackedGroupBytes(spec.dtype, spec.cols);
  const uint64_t row_bytes = spec.bytes() / spec.rows;
  const uint64_t piece_rows = std::max<uint64_t>(1, kPieceBytes / group_bytes) * kGroupRows;
  std::vector<uint8_t> piece;
  uint64_t offset = kPackedFileHeaderBytes;
  for (uint64_t row = 0; row < spec.rows; row += piece_rows) {
    const uint64_t rows = std::min(piece_rows, spec.rows - row);
    piece.resize(PackedMatrixBytes(spec.dtype, rows, spec.cols));
    PackMatrix(spec.dtype, rows, spec.cols, gguf.data() + row * row_bytes, piece.data());
    XXH3_64bits_update(state.get(), piece.data(), piece.size());
    RETURN_IF_ERROR(WriteAt(fd, piece.data(), piece.size(), offset, path));
    offset += piece.size();
  }
  return XXH3_64bits_digest(state.get());
}

// Writes what stands behind the header, and returns its XXH3-64.
using DataWriter =
    absl::FunctionRef<absl::StatusOr<uint64_t>(int fd, const std::string& temporary)>;

absl::Status WriteAll(int fd, const TensorSpec& spec, DataWriter write_data,
                      const std::string& path) {
  ASSIGN_OR_RETURN(const uint64_t xxh3, write_data(fd, path));
  const Header header = HeaderOf(spec, xxh3);
  RETURN_IF_ERROR(WriteAt(fd, &header, sizeof(header), 0, path));
  if (fdatasync(fd) != 0) return ErrnoStatus(errno, "sync", path);
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, const TensorSpec& spec, DataWriter write_data) {
  const std::string temporary =
      absl::StrCat(path, ".", absl::BytesToHexString(SecureRandomBytes(6)));
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "create", temporary);
  absl::Status status = WriteAll(fd, spec, write_data, temporary);
  if (close(fd) != 0 && status.ok()) status = ErrnoStatus(errno, "close", temporary);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, "rename", temporary);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

}  // namespace

absl::Status WritePackedFile(const std::string& path, const TensorSpec& spec,
                             absl::Span<const uint8_t> gguf) {
  CHECK(gguf.size() == spec.bytes());
  return WriteFile(path, spec, [&](int fd, const std::string& temporary) {
    return WriteData(fd, spec, gguf, temporary);
  });
}

absl::Status WritePackedBytes(const std::string& path, const TensorSpec& spec,
                              absl::Span<const uint8_t> packed) {
  CHECK(packed.size() == PackedBytes(spec));
  return WriteFile(
      path, spec, [&](int fd, const std::string& temporary) -> absl::StatusOr<uint64_t> {
        RETURN_IF_ERROR(
            WriteAt(fd, packed.data(), packed.size(), kPackedFileHeaderBytes, temporary));
        return XXH3_64bits(packed.data(), packed.size());
      });
}

absl::StatusOr<MappedFile> MapPackedFile(const std::string& path, const TensorSpec& spec) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  const absl::Span<const uint8_t> bytes = file.bytes();
  if (bytes.size() != kPackedFileHeaderBytes + PackedBytes(spec)) {
    return absl::DataLossError(absl::StrCat(path, " has the wrong size"));
  }
  const absl::Span<const uint8_t> data = bytes.subspan(kPackedFileHeaderBytes);
  const Header expected = HeaderOf(spec, XXH3_64bits(data.data(), data.size()));
  if (std::memcmp(bytes.data(), &expected, sizeof(expected)) != 0) {
    return absl::DataLossError(
        absl::StrCat(path, " is damaged, or in the layout of another version"));
  }
  return file;
}

}  // namespace efedllm
