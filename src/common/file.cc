#include "common/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/random.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr size_t kSuffixBytes = 6;  // random, of a file that is being written

// Opens a regular file for reading. The caller closes it. O_NONBLOCK: a FIFO must not hang us;
// files don't care.
absl::StatusOr<int> OpenRegular(const std::string& path, struct stat* info) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ErrnoStatus(errno, "open", path);
  if (fstat(fd, info) != 0 || !S_ISREG(info->st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  return fd;
}

absl::Status WriteAll(int fd, absl::string_view data, const std::string& path) {
  while (!data.empty()) {
    const ssize_t written = write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "write", path);
    data.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(fd) != 0) return ErrnoStatus(errno, "fsync", path);
  return absl::OkStatus();
}

}  // namespace

absl::Status ErrnoStatus(int error_number, absl::string_view operation, absl::string_view path) {
  return absl::ErrnoToStatus(error_number, absl::StrCat("can't ", operation, " ", path));
}

absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  struct stat info;
  ASSIGN_OR_RETURN(const int fd, OpenRegular(path, &info));
  absl::Cleanup closer = [fd] { close(fd); };
  MappedFile file;
  file.size_ = static_cast<size_t>(info.st_size);
  if (file.size_ == 0) return file;
  void* data = mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return ErrnoStatus(errno, "map", path);
  file.data_ = static_cast<const uint8_t*>(data);
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::DropPages(size_t offset, size_t length) const {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t first = (offset + page - 1) / page * page;
  const size_t last = (offset + length) / page * page;
  if (first < last && last <= size_) {
    madvise(const_cast<uint8_t*>(data_) + first, last - first, MADV_DONTNEED);
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  struct stat info;
  ASSIGN_OR_RETURN(const int fd, OpenRegular(path, &info));
  absl::Cleanup closer = [fd] { close(fd); };
  const auto too_large = [&](uint64_t bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, " has ", bytes, " bytes or more; at most ", max_bytes, " are allowed"));
  };
  if (static_cast<uint64_t>(info.st_size) > max_bytes) return too_large(info.st_size);
  // The size is only a hint: files below /proc and /sys say 0, and a file may grow meanwhile.
  std::string data(static_cast<size_t>(info.st_size) + 1, '\0');
  size_t have = 0;
  while (true) {
    const ssize_t got = read(fd, data.data() + have, data.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read", path);
    if (got == 0) break;
    have += static_cast<size_t>(got);
    if (have > max_bytes) return too_large(have);
    if (have == data.size()) data.resize(have + std::max<size_t>(have, 4096));
  }
  data.resize(have);
  return data;
}

absl::Status SyncFolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const int folder_fd =
      open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd < 0) return ErrnoStatus(errno, "open", folder);
  absl::Cleanup closer = [folder_fd] { close(folder_fd); };
  if (fsync(folder_fd) != 0) return ErrnoStatus(errno, "fsync", folder);
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view data, int mode) {
  const std::string temporary =
      absl::StrCat(path, ".", absl::BytesToHexString(SecureRandomBytes(kSuffixBytes)));
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return ErrnoStatus(errno, "create", temporary);
  absl::Status status = WriteAll(fd, data, temporary);
  close(fd);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = ErrnoStatus(errno, "rename", path);
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  return SyncFolderOf(path);
}

void RemoveUnfinishedFiles(const std::string& folder) {
  std::error_code ignored;  // what stays only takes room
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string ending = entry.path().extension().string();
    const bool ours = ending.size() == 1 + 2 * kSuffixBytes &&
                      std::all_of(ending.begin() + 1, ending.end(), [](char c) {
                        return absl::ascii_isxdigit(static_cast<unsigned char>(c));
                      });
    if (ours && entry.is_regular_file(ignored)) std::filesystem::remove(entry.path(), ignored);
  }
}

absl::Status MakeDirectories(const std::string& path, int mode) {
  std::error_code error;
  const bool created = std::filesystem::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), "create folder", path);
  if (created && chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) {
    return ErrnoStatus(errno, "chmod", path);
  }
  return absl::OkStatus();
}

}  // namespace efedllm
