#include "worker/row_log.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "common/check.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "worker/disk_room.h"

namespace efedllm {

void RowLog::Unmap::operator()(char* segment) const { munmap(segment, kSegmentBytes); }

RowLog::~RowLog() {
  for (const int file : {file_.direct, file_.buffered}) {
    if (file >= 0) close(file);
  }
}

bool RowLog::Crowded() const {
  absl::ReaderMutexLock lock(&mu_);
  return memory_bytes() > 2 * options_.memory_bytes;
}

uint64_t RowLog::oldest() const {
  absl::ReaderMutexLock lock(&mu_);
  return oldest_;
}

uint64_t RowLog::end() const {
  absl::ReaderMutexLock lock(&mu_);
  return end_;
}

uint64_t RowLog::window() const {
  absl::ReaderMutexLock lock(&mu_);
  return oldest_ > 0 ? end_ - oldest_ : options_.memory_bytes + slots_ * kSegmentBytes;
}

uint64_t RowLog::Append(absl::string_view bytes) {
  absl::MutexLock lock(&mu_);
  const uint64_t offset = end_;
  while (!bytes.empty()) {
    const size_t at = end_ % kSegmentBytes;
    if (at == 0 && !spares_.empty()) {
      segments_.push_back(std::move(spares_.back()));
      spares_.pop_back();
    } else if (at == 0) {
      void* pages =
          mmap(nullptr, kSegmentBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      CHECK(pages != MAP_FAILED);  // no memory
      segments_.emplace_back(static_cast<char*>(pages));
    }
    const size_t part = std::min(kSegmentBytes - at, bytes.size());
    std::memcpy(segments_.back().get() + at, bytes.data(), part);
    bytes.remove_prefix(part);
    end_ += part;
  }
  return offset;
}

bool RowLog::HasRoom() const {
  if (options_.has_room) return options_.has_room();
  std::error_code error;
  const std::filesystem::space_info space =
      std::filesystem::space(std::filesystem::path(options_.path).parent_path(), error);
  return !error && LeavesRoom({space.available, space.capacity}, kSegmentBytes);
}

// Past the page cache: hundreds of megabytes that are hardly ever read again would push out what
// the machine's owner, and the weights, have there.
absl::Status RowLog::Open() {
  const char* const path = options_.path.c_str();
  (void)unlink(path);
  file_.buffered = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file_.buffered < 0) return ErrnoStatus(errno, "make", options_.path);
  file_.direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);  // not every file system can
  (void)unlink(path);  // goes with this process, however it ends
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> RowLog::PlaceInFile() {
  // Where the disk is short of room the file stays as large as it is.
  if (spilled_ < slots_ * kSegmentBytes && !HasRoom()) slots_ = spilled_ / kSegmentBytes;
  if (slots_ == 0) {
    return absl::ResourceExhaustedError("a tenth of the disk, and a gigabyte, stay free");
  }
  if (file_.buffered < 0) RETURN_IF_ERROR(Open());
  return spilled_ / kSegmentBytes % slots_ * kSegmentBytes;
}

absl::Status RowLog::Write(int file, const char* segment, uint64_t at) const {
  for (size_t done = 0; done < kSegmentBytes;) {
    const ssize_t n =
        pwrite(file, segment + done, kSegmentBytes - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrnoStatus(errno, "write", options_.path);
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status RowLog::SpillOldest() {
  ASSIGN_OR_RETURN(const uint64_t place, PlaceInFile());
  // What the slot has now is overwritten.
  const uint64_t end = spilled_ + kSegmentBytes;
  oldest_ = std::max(oldest_, end - std::min(end, slots_ * kSegmentBytes));
  const int file = file_.direct >= 0 ? file_.direct : file_.buffered;
  const char* const segment = segments_.front().get();
  mu_.Unlock();
  const absl::Status status = Write(file, segment, place);
  mu_.Lock();
  return status;
}

absl::Status RowLog::Tend() {
  absl::Status status;
  mu_.Lock();
  mu_.Await(absl::Condition(
      +[](bool* writing) { return !*writing; }, &writing_));
  writing_ = true;
  while (segments_.size() > 1 && memory_bytes() >= options_.memory_bytes + kSegmentBytes) {
    const bool wanted = slots_ > 0 && status.ok();
    if (wanted) status = SpillOldest();
    spilled_ += kSegmentBytes;
    if (!wanted || !status.ok()) oldest_ = spilled_;
    if (spares_.size() < kMostSpares) spares_.push_back(std::move(segments_.front()));
    segments_.pop_front();
  }
  writing_ = false;
  mu_.Unlock();
  return status;
}

absl::Status RowLog::ReadPart(uint64_t offset, size_t size, std::string& out) const {
  const auto gone = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return offset < oldest_ || offset + size > end_;
  };
  const absl::Status older = absl::NotFoundError("the rows are older than what this node keeps");
  const uint64_t at = offset % kSegmentBytes;
  int file = -1;
  uint64_t from = 0;
  {
    absl::ReaderMutexLock lock(&mu_);
    if (gone()) return older;
    if (offset >= spilled_) {
      out.append(segments_[(offset - spilled_) / kSegmentBytes].get() + at, size);
      return absl::OkStatus();
    }
    file = file_.buffered;
    from = offset / kSegmentBytes % slots_ * kSegmentBytes + at;
  }
  const size_t begin = out.size();
  out.resize(begin + size);
  const ssize_t n = pread(file, out.data() + begin, size, static_cast<off_t>(from));
  if (n < 0 || static_cast<size_t>(n) != size) return ErrnoStatus(errno, "read", options_.path);
  absl::ReaderMutexLock lock(&mu_);
  return gone() ? older : absl::OkStatus();  // overwritten meanwhile?
}

absl::Status RowLog::Read(uint64_t offset, size_t size, std::string& out) const {
  while (size > 0) {
    const size_t part = std::min<size_t>(kSegmentBytes - offset % kSegmentBytes, size);
    RETURN_IF_ERROR(ReadPart(offset, part, out));
    offset += part;
    size -= part;
  }
  return absl::OkStatus();
}

}  // namespace efedllm
