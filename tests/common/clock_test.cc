#include "common/clock.h"

#include <gtest/gtest.h>

#include <thread>

namespace efedllm {
namespace {

TEST(SteadyNow, NeverGoesBack) {
  absl::Time last = SteadyNow();
  for (int i = 0; i < 100'000; ++i) {
    const absl::Time now = SteadyNow();
    ASSERT_LE(last, now);
    last = now;
  }
}

TEST(SteadyNow, IsOneClockForAllThreads) {
  for (int i = 0; i < 100; ++i) {
    const absl::Time before = SteadyNow();
    absl::Time other;
    std::thread([&] { other = SteadyNow(); }).join();
    EXPECT_LE(before, other);
    EXPECT_LE(other, SteadyNow());
  }
}

TEST(ManualClock, KeepsItsTimeWhenTheWallClockIsSet) {
  ManualClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.WallNow(), start);
  clock.SetSkew(-absl::Hours(5));
  EXPECT_EQ(clock.Now(), start);
  EXPECT_EQ(clock.WallNow(), start - absl::Hours(5));
  clock.Advance(absl::Seconds(3));
  EXPECT_EQ(clock.Now(), start + absl::Seconds(3));
  EXPECT_EQ(clock.WallNow(), start - absl::Hours(5) + absl::Seconds(3));
}

}  // namespace
}  // namespace efedllm
