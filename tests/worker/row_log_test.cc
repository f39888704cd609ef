#include "worker/row_log.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "common/random.h"
#include "worker/disk_room.h"

namespace efedllm {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::string Path() { return testing::TempDir() + "/row_log_test.rows"; }

TEST(RowLog, KeepsWhatFitsInMemoryAndOnDiskAndDropsTheOldest) {
  RowLog log({.memory_bytes = 2 * kMiB, .disk_bytes = 3 * kMiB, .path = Path()});
  Random random(1);
  std::vector<std::pair<uint64_t, std::string>> written;
  for (int i = 0; i < 200; ++i) {
    std::string bytes(1000 + random.Below(100'000), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.Below(256));
    written.emplace_back(log.Append(bytes), bytes);
    ASSERT_TRUE(log.Tend().ok());
  }
  size_t kept = 0;
  for (const auto& [offset, bytes] : written) {
    std::string read = "before ";
    const absl::Status status = log.Read(offset, bytes.size(), read);
    if (offset < log.oldest()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
      continue;
    }
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(read, "before " + bytes);
    kept += bytes.size();
  }
  EXPECT_GT(kept, 4 * kMiB);
  EXPECT_LE(log.end() - log.oldest(), 6 * kMiB);
}

TEST(DiskRoom, LeavesATenthOfTheDiskAndAGigabyteFree) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  EXPECT_TRUE(LeavesRoom({.free = 3 * kGiB, .total = 10 * kGiB}, 2 * kGiB));
  EXPECT_FALSE(LeavesRoom({.free = 3 * kGiB, .total = 10 * kGiB}, 2 * kGiB + 1));
  EXPECT_FALSE(LeavesRoom({.free = 3 * kGiB, .total = 100 * kGiB}, 1));
  EXPECT_FALSE(LeavesRoom({.free = kGiB / 2, .total = kGiB}, 1));
}

TEST(RowLog, StaysAsLargeAsTheDiskHasRoom) {
  for (const int room : {0, 2}) {
    int grown = 0;
    RowLog log({.memory_bytes = kMiB, .disk_bytes = 100 * kMiB, .path = Path(), .has_room = [&] {
                  return grown++ < room;
                }});
    std::vector<uint64_t> offsets;
    for (int i = 0; i < 20; ++i) {
      offsets.push_back(log.Append(std::string(kMiB, static_cast<char>('a' + i))));
      (void)log.Tend();
    }
    EXPECT_EQ(log.end() - log.oldest(), (1 + room) * kMiB);
    for (int i = 19 - room; i < 20; ++i) {
      std::string read;
      ASSERT_TRUE(log.Read(offsets[i], kMiB, read).ok());
      EXPECT_EQ(read, std::string(kMiB, static_cast<char>('a' + i)));
    }
    EXPECT_LE(grown, room + 1);
  }
}

TEST(RowLog, DoesWithoutAFile) {
  for (const std::string& path : {Path(), std::string("/nowhere/rows")}) {
    RowLog log({.memory_bytes = kMiB, .disk_bytes = path == Path() ? 0 : kMiB, .path = path});
    const std::string bytes(700'000, 'x');
    for (int i = 0; i < 5; ++i) log.Append(bytes);
    EXPECT_EQ(log.Tend().ok(), path == Path());
    EXPECT_GT(log.oldest(), 0u);
    std::string read;
    EXPECT_TRUE(log.Read(log.end() - bytes.size(), bytes.size(), read).ok());
    EXPECT_EQ(read, bytes);
  }
}

}  // namespace
}  // namespace efedllm
