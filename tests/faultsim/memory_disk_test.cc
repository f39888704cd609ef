#include "faultsim/memory_disk.h"

#include <gtest/gtest.h>

#include "common/file.h"
#include "coordinator/state_database.h"

namespace efedllm::faultsim {
namespace {

std::string Folder() {
  const std::string folder = testing::TempDir() + "/memory_disk";
  EXPECT_TRUE(MakeDirectories(folder, 0700).ok());
  return folder;
}

uint64_t Next(Database& database) { return NextEpoch(database)->v; }

TEST(MemoryDisk, WhatACommittedTransactionWroteIsThereAfterACrash) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    MemoryDisk disk(Folder());
    uint64_t last = 0;
    for (int life = 0; life < 4; ++life) {
      auto database = OpenStateDatabase(disk.folder());
      ASSERT_TRUE(database.ok()) << database.status() << " in life " << life << " of " << seed;
      for (uint64_t i = random.Below(4); i > 0; --i) {
        const uint64_t next = Next(**database);
        EXPECT_GT(next, last);
        last = next;
      }
      // The machine stops in the middle of a later transaction.
      uint64_t ops = random.Below(12);
      disk.set_on_op([&](DiskOp) { return ops-- == 0 ? DiskFault::kCrash : DiskFault::kNone; });
      const absl::StatusOr<Epoch> lost = NextEpoch(**database);
      if (!disk.frozen() && lost.ok()) last = lost->v;
      disk.Freeze();
      database->reset();
      disk.set_on_op(nullptr);
      disk.Recover(random);
    }
  }
}

TEST(MemoryDisk, ASyncThatWasALieIsFound) {
  bool lost = false;
  for (uint64_t seed = 0; seed < 50 && !lost; ++seed) {
    Random random(seed);
    MemoryDisk disk(Folder());
    auto database = OpenStateDatabase(disk.folder());
    ASSERT_TRUE(database.ok());
    disk.set_on_op([](DiskOp) { return DiskFault::kLostSync; });
    const uint64_t last = Next(**database);
    disk.Freeze();
    database->reset();
    disk.set_on_op(nullptr);
    disk.Recover(random);
    database = OpenStateDatabase(disk.folder());
    lost = !database.ok() || Next(**database) <= last;
  }
  EXPECT_TRUE(lost);
}

TEST(MemoryDisk, AFullDiskFailsTheTransactionAndNothingElse) {
  MemoryDisk disk(Folder());
  auto database = OpenStateDatabase(disk.folder());
  ASSERT_TRUE(database.ok());
  const uint64_t first = Next(**database);
  disk.set_on_op([](DiskOp) { return DiskFault::kFull; });
  EXPECT_FALSE(NextEpoch(**database).ok());
  disk.set_on_op(nullptr);
  EXPECT_EQ(Next(**database), first + 1);
}

}  // namespace
}  // namespace efedllm::faultsim
