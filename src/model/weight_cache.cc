#include "model/weight_cache.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/packed_file.h"

namespace efedllm {
namespace {

uint64_t ChunkSize(const TensorSpec& spec, uint64_t index) {
  return std::min(kChunkBytes, spec.bytes() - index * kChunkBytes);
}

absl::StatusOr<uint64_t> SizeOf(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "look at", path);
  return static_cast<uint64_t>(info.st_size);
}

// Leading chunks of the file that are whole and right.
uint64_t VerifiedChunks(const TensorSpec& spec, absl::Span<const uint8_t> bytes) {
  uint64_t index = 0;
  for (; index < spec.chunks.size(); ++index) {
    const uint64_t offset = index * kChunkBytes;
    const uint64_t size = ChunkSize(spec, index);
    if (offset + size > bytes.size()) break;
    if (Sha256(bytes.subspan(offset, size)) != spec.chunks[index]) break;
  }
  return index;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const PackedTensor>> PackedTensor::FromGguf(
    const TensorSpec& spec, absl::Span<const uint8_t> gguf) {
  CHECK(gguf.size() == spec.bytes());
  ASSIGN_OR_RETURN(const std::shared_ptr<WeightMemory> memory,
                   WeightMemory::Allocate(PackedBytes(spec)));
  if (spec.rows == 1) {
    std::memcpy(memory->data(), gguf.data(), gguf.size());
  } else {
    PackMatrix(spec.dtype, spec.rows, spec.cols, gguf.data(), memory->data());
  }
  return std::make_shared<const PackedTensor>(spec, memory, 0);
}

PackedTensor::PackedTensor(const TensorSpec& spec, MappedFile file, size_t offset)
    : dtype_(spec.dtype),
      rows_(spec.rows),
      cols_(spec.cols),
      file_(std::move(file)),
      data_(file_.bytes().subspan(offset)) {}

PackedTensor::PackedTensor(const TensorSpec& spec, std::shared_ptr<const WeightMemory> memory,
                           size_t offset)
    : dtype_(spec.dtype),
      rows_(spec.rows),
      cols_(spec.cols),
      memory_(std::move(memory)),
      data_(memory_->data() + offset, PackedBytes(spec)) {}

PackedMatrix PackedTensor::matrix() const {
  CHECK(rows_ > 1);
  return {dtype_, rows_, cols_, data_.data()};
}

absl::Span<const float> PackedTensor::vector() const {
  CHECK(rows_ == 1 && dtype_ == DType::kF32);
  return {reinterpret_cast<const float*>(data_.data()), cols_};
}

std::string WeightCache::Path(const TensorSpec& spec, absl::string_view suffix) const {
  return absl::StrCat(dir_, "/", ToHex(spec.id()), suffix);
}

absl::StatusOr<std::unique_ptr<WeightCache>> WeightCache::Open(const std::string& dir) {
  if (dir.empty()) return absl::FailedPreconditionError("the weight cache needs a folder");
  RETURN_IF_ERROR(MakeDirectories(dir, 0700));
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (!absl::StrContains(name, ".packed.")) continue;
    std::error_code ignored;  // if it stays, it only takes room
    std::filesystem::remove(entry.path(), ignored);
  }
  if (error) return ErrnoStatus(error.value(), "list", dir);
  return std::unique_ptr<WeightCache>(new WeightCache(dir));
}

absl::StatusOr<std::shared_ptr<const PackedTensor>> WeightCache::Get(const TensorSpec& spec) {
  const std::string path = Path(spec, ".packed");
  absl::StatusOr<MappedFile> file = MapPackedFile(path, spec);
  if (absl::IsDataLoss(file.status())) {
    spdlog::warn("{}; it is removed and made anew", std::string(file.status().message()));
    if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, "remove", path);
    return absl::NotFoundError(file.status().message());
  }
  if (!file.ok()) return file.status();
  return std::make_shared<const PackedTensor>(spec, *std::move(file), kPackedFileHeaderBytes);
}

absl::StatusOr<std::shared_ptr<const PackedTensor>> WeightCache::Put(
    const TensorSpec& spec, absl::Span<const uint8_t> gguf) {
  RETURN_IF_ERROR(WritePackedFile(Path(spec, ".packed"), spec, gguf));
  return Get(spec);
}

absl::Status WeightCache::PutPacked(const TensorSpec& spec, absl::Span<const uint8_t> packed) {
  return WritePackedBytes(Path(spec, ".packed"), spec, packed);
}

bool WeightCache::Has(const TensorSpec& spec) const {
  return access(Path(spec, ".packed").c_str(), R_OK) == 0;
}

absl::Status WeightCache::KeepOnly(const std::vector<TensorSpec>& specs) {
  absl::flat_hash_set<std::string> kept;
  for (const TensorSpec& spec : specs) kept.insert(absl::StrCat(ToHex(spec.id()), ".packed"));
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir_, error)) {
    const std::string name = entry.path().filename().string();
    if (!absl::EndsWith(name, ".packed") || kept.contains(name)) continue;
    std::error_code ignored;  // if it stays, it only takes room
    std::filesystem::remove(entry.path(), ignored);
  }
  return error ? ErrnoStatus(error.value(), "list", dir_) : absl::OkStatus();
}

absl::StatusOr<DiskSpace> WeightCache::Space() const {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(dir_, error);
  if (error) return ErrnoStatus(error.value(), "look at", dir_);
  return DiskSpace{space.available, space.capacity};
}

absl::StatusOr<uint64_t> WeightCache::FreeBytes() const {
  ASSIGN_OR_RETURN(const DiskSpace space, Space());
  return space.free;
}

absl::StatusOr<uint64_t> WeightCache::ChunksHeld(const TensorSpec& spec) {
  const std::string path = Path(spec, ".part");
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (absl::IsNotFound(file.status())) return 0;
  if (!file.ok()) return file.status();
  const uint64_t chunks = VerifiedChunks(spec, file->bytes());
  const uint64_t good = std::min(chunks * kChunkBytes, spec.bytes());
  if (good < file->bytes().size()) {
    spdlog::warn("{}: {} of {} bytes are damaged and cut off", path, file->bytes().size() - good,
                 file->bytes().size());
    if (truncate(path.c_str(), static_cast<off_t>(good)) != 0) {
      return ErrnoStatus(errno, "truncate", path);
    }
  }
  return chunks;
}

absl::Status WeightCache::AddChunk(const TensorSpec& spec, uint64_t index,
                                   absl::Span<const uint8_t> bytes) {
  if (index >= spec.chunks.size()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "tensor ", Printable(spec.name), " has ", spec.chunks.size(), " chunks, not ", index + 1));
  }
  if (bytes.size() != ChunkSize(spec, index) || Sha256(bytes) != spec.chunks[index]) {
    return absl::DataLossError(absl::StrCat("chunk ", index, " of tensor ", Printable(spec.name),
                                            " arrived damaged (SHA-256 or size differ)"));
  }
  const std::string path = Path(spec, ".part");
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "create", path);
  absl::Cleanup closer = [fd] { close(fd); };
  ASSIGN_OR_RETURN(const uint64_t size, SizeOf(fd, path));
  if (size != index * kChunkBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " has ", size, " bytes: chunk ", index, " is not the next one"));
  }
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written =
        pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(size + done));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const absl::Status status = ErrnoStatus(errno, "write", path);
      if (ftruncate(fd, static_cast<off_t>(size)) != 0) {
        spdlog::warn("can't truncate {}: {}", path, std::strerror(errno));
      }
      return status;
    }
    done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const PackedTensor>> WeightCache::Finish(const TensorSpec& spec) {
  const std::string path = Path(spec, ".part");
  {
    ASSIGN_OR_RETURN(const MappedFile part, MappedFile::Open(path));
    if (part.bytes().size() != spec.bytes()) {
      return absl::FailedPreconditionError(absl::StrCat("tensor ", Printable(spec.name), ": only ",
                                                        part.bytes().size(), " of ", spec.bytes(),
                                                        " bytes are here"));
    }
    RETURN_IF_ERROR(WritePackedFile(Path(spec, ".packed"), spec, part.bytes()));
  }
  if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, "remove", path);
  return Get(spec);
}

}  // namespace efedllm
