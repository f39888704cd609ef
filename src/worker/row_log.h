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

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace efedllm {

struct RowLogOptions {
  uint64_t memory_bytes = uint64_t{16} << 20;
  uint64_t disk_bytes = uint64_t{1} << 30;  // 0: no file
  std::string path;                         // made anew; has no name while it is used
  std::function<bool()> has_room = {};      // of tests: for the file to grow; empty: disk_room.h
};

// Offsets count all bytes that were ever appended. Not thread-safe.
class RowLog {
 public:
  explicit RowLog(RowLogOptions options) : options_(std::move(options)) {}
  ~RowLog();
  RowLog(const RowLog&) = delete;
  RowLog& operator=(const RowLog&) = delete;

  // Where the bytes begin. They are memory for now, whatever the limit.
  uint64_t Append(absl::string_view bytes);
  // Moves what is above the limit to the file, and drops what is above that one's. Where the file
  // can't be written it does without, and the status says why.
  absl::Status Tend();
  // True while more waits in memory than a Tend should find.
  bool Crowded() const { return memory_bytes() > 2 * options_.memory_bytes; }

  // Appends [offset, offset + size) to out. NotFound: dropped; others: the file can't be read.
  absl::Status Read(uint64_t offset, size_t size, std::string& out) const;
  // What lies before it was dropped.
  uint64_t oldest() const { return oldest_; }
  uint64_t end() const { return end_; }
  // How far back it reaches, or will once it is full.
  uint64_t window() const {
    return oldest_ > 0 ? end_ - oldest_ : options_.memory_bytes + slots_ * kSegmentBytes;
  }

 private:
  static constexpr size_t kSegmentBytes = 1 << 20;
  static constexpr size_t kMostSpares = 4;
  // Pages of its own, that go back whole: between a heap's other blocks, segments that come and go
  // for ever would leave holes.
  struct Unmap {
    void operator()(char* segment) const;
  };
  using Segment = std::unique_ptr<char, Unmap>;

  uint64_t memory_bytes() const { return end_ - spilled_; }
  bool HasRoom() const;
  absl::Status Spill(const char* segment);

  const RowLogOptions options_;
  uint64_t slots_ = options_.disk_bytes / kSegmentBytes;  // that the file may have
  int file_ = -1;
  std::deque<Segment> segments_;  // [spilled_, end_)
  // A few that were used: fresh pages cost as much as digesting what goes into them.
  std::vector<Segment> spares_;
  uint64_t oldest_ = 0;
  uint64_t spilled_ = 0;  // up to here it is in the file, in slots that are used again and again
  uint64_t end_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_ROW_LOG_H_
