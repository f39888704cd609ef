// Bytes that are kept for a while: the newest in memory, older ones in a file, the oldest dropped.
#ifndef EFEDLLM_WORKER_ROW_LOG_H_
#define EFEDLLM_WORKER_ROW_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace efedllm {

struct RowLogOptions {
  uint64_t memory_bytes = uint64_t{16} << 20;
  uint64_t disk_bytes = uint64_t{1} << 30;  // 0: no file
  std::string path;                         // made anew; has no name while it is used
  std::function<bool()> has_room = {};      // of tests: for the file to grow; empty: disk_room.h
};

// Offsets count all bytes that were ever appended. Thread-safe; who appends or reads waits for no
// write.
class RowLog {
 public:
  explicit RowLog(RowLogOptions options) : options_(std::move(options)) {}
  ~RowLog();
  RowLog(const RowLog&) = delete;
  RowLog& operator=(const RowLog&) = delete;

  // Where the bytes begin. They are memory for now, whatever the limit.
  uint64_t Append(absl::string_view bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // Moves what is above the limit to the file, and drops what is above that one's. Where the file
  // can't be written it does without, and the status says why.
  absl::Status Tend() ABSL_LOCKS_EXCLUDED(mu_);
  // True while more waits in memory than a Tend should find.
  bool Crowded() const ABSL_LOCKS_EXCLUDED(mu_);

  // Appends [offset, offset + size) to out. NotFound: dropped; others: the file can't be read.
  absl::Status Read(uint64_t offset, size_t size, std::string& out) const ABSL_LOCKS_EXCLUDED(mu_);
  // What lies before it was dropped.
  uint64_t oldest() const ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t end() const ABSL_LOCKS_EXCLUDED(mu_);
  // How far back it reaches, or will once it is full.
  uint64_t window() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  static constexpr size_t kSegmentBytes = 1 << 20;
  static constexpr size_t kMostSpares = 4;
  // Pages of its own, that go back whole: between a heap's other blocks, segments that come and go
  // for ever would leave holes.
  struct Unmap {
    void operator()(char* segment) const;
  };
  using Segment = std::unique_ptr<char, Unmap>;

  // One for writes and one for reads. -1: not open.
  struct File {
    int direct = -1, buffered = -1;
  };

  uint64_t memory_bytes() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return end_ - spilled_; }
  bool HasRoom() const;
  // That the oldest segment in memory has a place in the file, which it returns.
  absl::StatusOr<uint64_t> PlaceInFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The lock is free while it writes.
  absl::Status SpillOldest() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Open() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Write(int file, const char* segment, uint64_t at) const;
  // Of one segment.
  absl::Status ReadPart(uint64_t offset, size_t size, std::string& out) const
      ABSL_LOCKS_EXCLUDED(mu_);

  const RowLogOptions options_;
  mutable absl::Mutex mu_;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  // That the file may have.
  uint64_t slots_ ABSL_GUARDED_BY(mu_) = options_.disk_bytes / kSegmentBytes;
  File file_ ABSL_GUARDED_BY(mu_);
  std::deque<Segment> segments_ ABSL_GUARDED_BY(mu_);  // [spilled_, end_)
  // A few that were used: fresh pages cost as much as digesting what goes into them.
  std::vector<Segment> spares_ ABSL_GUARDED_BY(mu_);
  uint64_t oldest_ ABSL_GUARDED_BY(mu_) = 0;
  // Up to here it is in the file, in slots that are used again and again.
  uint64_t spilled_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t end_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_ROW_LOG_H_
