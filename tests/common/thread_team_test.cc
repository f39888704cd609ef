#include "common/thread_team.h"

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace efedllm {
namespace {

TEST(ThreadTeam, RunsEveryChunkOnce) {
  for (int threads : {0, 1, 2, 5}) {
    ThreadTeam team(threads);
    for (size_t chunks : {0, 1, 2, 3, 100, 1000}) {
      std::vector<int> runs(chunks, 0);
      team.ParallelFor(chunks, [&](size_t i) { ++runs[i]; });
      EXPECT_EQ(runs, std::vector<int>(chunks, 1)) << threads << " threads";
    }
  }
}

TEST(ThreadTeam, LoopsSeeWhatEarlierLoopsWrote) {
  ThreadTeam team(4);
  std::vector<uint64_t> values(64, 1), next(64);
  for (int loop = 0; loop < 2000; ++loop) {
    team.ParallelFor(values.size(), [&](size_t i) { next[i] = values[(i + 7) % 64] + 1; });
    values.swap(next);
  }
  EXPECT_EQ(values, std::vector<uint64_t>(64, 2001));
}

TEST(ThreadTeam, WakesHelpersThatSleep) {
  ThreadTeam team(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // far beyond the spinning
    // Each chunk waits for the other: both threads must come.
    std::atomic<int> arrived{0};
    team.ParallelFor(2, [&](size_t) {
      ++arrived;
      while (arrived.load() < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), 2);
  }
}

TEST(ThreadTeam, RunsEveryChunkOnceWhileOthersKeepTheCoresBusy) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (unsigned i = 0; i < 2 * std::thread::hardware_concurrency(); ++i) {
    others.emplace_back([&stop] {
      while (!stop.load(std::memory_order_relaxed)) {
      }
    });
  }
  ThreadTeam team(3);
  std::vector<int> runs(16, 0);
  for (int loop = 0; loop < 100; ++loop) {
    team.ParallelFor(runs.size(), [&](size_t i) { ++runs[i]; });
  }
  stop = true;
  for (std::thread& other : others) other.join();
  EXPECT_EQ(runs, std::vector<int>(16, 100));
}

TEST(ThreadTeam, CallersTakeTurns) {
  ThreadTeam team(3);
  std::vector<std::vector<int>> runs(4, std::vector<int>(8, 0));
  std::vector<std::thread> callers;
  for (std::vector<int>& own : runs) {
    callers.emplace_back([&team, &own] {
      for (int loop = 0; loop < 200; ++loop) {
        team.ParallelFor(own.size(), [&](size_t i) { ++own[i]; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(runs, std::vector<std::vector<int>>(4, std::vector<int>(8, 200)));
}

TEST(ThreadTeam, EndsWhileHelpersSleepSpinOrHaveNeverStarted) {
  for (int i = 0; i < 50; ++i) {
    ThreadTeam team(3);
    if (i % 2 == 0) team.ParallelFor(8, [](size_t) {});
    if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace
}  // namespace efedllm
