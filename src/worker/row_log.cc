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
#include "worker/disk_room.h"

namespace efedllm {

void RowLog::Unmap::operator()(char* segment) const { munmap(segment, kSegmentBytes); }

RowLog::~RowLog() {
  if (file_ >= 0) close(file_);
}

uint64_t RowLog::Append(absl::string_view bytes) {
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

absl::Status RowLog::Spill(const char* segment) {
  // Where the disk is short of room the file stays as large as it is.
  if (spilled_ < slots_ * kSegmentBytes && !HasRoom()) slots_ = spilled_ / kSegmentBytes;
  if (slots_ == 0) {
    return absl::ResourceExhaustedError("a tenth of the disk, and a gigabyte, stay free");
  }
  if (file_ < 0) {
    (void)unlink(options_.path.c_str());
    file_ = open(options_.path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file_ < 0) return ErrnoStatus(errno, "make", options_.path);
    (void)unlink(options_.path.c_str());  // goes with this process, however it ends
  }
  const uint64_t at = spilled_ / kSegmentBytes % slots_ * kSegmentBytes;
  for (size_t done = 0; done < kSegmentBytes;) {
    const ssize_t n =
        pwrite(file_, segment + done, kSegmentBytes - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrnoStatus(errno, "write", options_.path);
    done += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status RowLog::Tend() {
  absl::Status status;
  while (segments_.size() > 1 && memory_bytes() >= options_.memory_bytes + kSegmentBytes) {
    const bool wanted = slots_ > 0 && status.ok();
    if (wanted) status = Spill(segments_.front().get());
    spilled_ += kSegmentBytes;
    const uint64_t in_file = slots_ * kSegmentBytes;
    oldest_ = !wanted || !status.ok() ? spilled_
                                      : std::max(oldest_, spilled_ - std::min(spilled_, in_file));
    if (spares_.size() < kMostSpares) spares_.push_back(std::move(segments_.front()));
    segments_.pop_front();
  }
  return status;
}

absl::Status RowLog::Read(uint64_t offset, size_t size, std::string& out) const {
  if (offset < oldest_ || offset + size > end_) {
    return absl::NotFoundError("the rows are older than what this node keeps");
  }
  while (size > 0) {
    const uint64_t at = offset % kSegmentBytes;
    const size_t part = std::min<size_t>(kSegmentBytes - at, size);
    if (offset >= spilled_) {
      out.append(segments_[(offset - spilled_) / kSegmentBytes].get() + at, part);
    } else {
      const size_t begin = out.size();
      out.resize(begin + part);
      const uint64_t from = offset / kSegmentBytes % slots_ * kSegmentBytes + at;
      const ssize_t n = pread(file_, out.data() + begin, part, static_cast<off_t>(from));
      if (n < 0 || static_cast<size_t>(n) != part) return ErrnoStatus(errno, "read", options_.path);
    }
    offset += part;
    size -= part;
  }
  return absl::OkStatus();
}

}  // namespace efedllm
