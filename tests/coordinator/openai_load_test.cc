#include "coordinator/openai_load.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace efedllm {
namespace {

SchedulerStats Busy(size_t queued, size_t running = 4) {
  SchedulerStats stats;
  stats.serving = true;
  stats.queued = queued;
  stats.running = running;
  return stats;
}

class LoadMeterTest : public testing::Test {
 protected:
  // An owner's sequences come, and stay.
  void Come(const Turn& turn, size_t sequences) {
    shares_.push_back(std::make_unique<LoadMeter::Share>(meter_, turn, sequences));
  }
  // Others' finish, two a second, while a queue waits.
  void FinishTwoASecond(size_t count) {
    LoadMeter::Share others(meter_, {"done", 0}, count);
    for (size_t i = 0; i < count; ++i) {
      others.Finish(now_, Busy(100));
      now_ += absl::Milliseconds(500);
    }
    now_ -= absl::Milliseconds(500);
  }
  double Wait(const Turn& turn, const SchedulerStats& stats) {
    const auto wait = meter_.WaitOf(turn, now_, stats);
    return wait.has_value() ? absl::ToDoubleSeconds(*wait) : -1;
  }

  LoadMeter meter_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1000);
  std::vector<std::unique_ptr<LoadMeter::Share>> shares_;
};

TEST_F(LoadMeterTest, KnowsNothingBeforeAFewHaveFinished) {
  EXPECT_EQ(Wait({"a", 0}, Busy(10)), -1);
  FinishTwoASecond(3);
  EXPECT_EQ(Wait({"a", 0}, Busy(10)), -1);
  EXPECT_EQ(meter_.RetryFullQueue(now_, Busy(10)), absl::Seconds(1));
}

TEST_F(LoadMeterTest, WhoMeetsNoQueueDoesNotWait) { EXPECT_EQ(Wait({"a", 0}, Busy(0)), 0); }

TEST_F(LoadMeterTest, WaitsForThoseBeforeItAtTheRateOfTheLastOnes) {
  Come({"a", 0}, 20);
  FinishTwoASecond(10);
  EXPECT_NEAR(Wait({"a", 0}, Busy(16, 4)), (20 * 0.8 + 1) / 2, 1e-6);
}

TEST_F(LoadMeterTest, AnOwnerOfLittleDoesNotWaitForOneOfMuch) {
  Come({"much", 0}, 100);
  Come({"little", 0}, 1);
  FinishTwoASecond(10);
  EXPECT_GT(Wait({"much", 0}, Busy(97, 4)), 40);
  EXPECT_LT(Wait({"little", 0}, Busy(97, 4)), 3);
  EXPECT_LT(Wait({"new", 0}, Busy(97, 4)), 3);
}

TEST_F(LoadMeterTest, HigherPrioritiesGoFirst) {
  Come({"a", 0}, 50);
  Come({"b", 5}, 50);
  FinishTwoASecond(10);
  EXPECT_LT(Wait({"c", 10}, Busy(96, 4)), 1);
  EXPECT_GT(Wait({"c", 0}, Busy(96, 4)), 20);
}

TEST_F(LoadMeterTest, ALullBeforeABurstSaysNothing) {
  FinishTwoASecond(10);
  LoadMeter::Share last(meter_, {"a", 0}, 1);
  last.Finish(now_, Busy(0));  // the queue was empty
  now_ += absl::Seconds(60);
  EXPECT_EQ(Wait({"a", 0}, Busy(10)), -1);
}

TEST_F(LoadMeterTest, AStandstillMakesTheWaitLonger) {
  Come({"a", 0}, 10);
  FinishTwoASecond(10);
  const double before = Wait({"a", 0}, Busy(10));
  now_ += absl::Seconds(30);
  EXPECT_GT(Wait({"a", 0}, Busy(10)), 4 * before);
}

TEST_F(LoadMeterTest, AFullQueuesRetryIsHalfOfItsTime) {
  FinishTwoASecond(10);
  EXPECT_EQ(meter_.RetryFullQueue(now_, Busy(40)), absl::Seconds(10));
  EXPECT_EQ(meter_.RetryFullQueue(now_, Busy(1)), absl::Seconds(1));
  EXPECT_EQ(meter_.RetryFullQueue(now_, Busy(100'000)), absl::Seconds(60));
}

TEST_F(LoadMeterTest, WhoIsGoneIsForgotten) {
  Come({"a", 0}, 50);
  shares_.clear();
  FinishTwoASecond(10);
  EXPECT_NEAR(Wait({"a", 0}, Busy(10)), 0.5, 1e-6);
}

TEST(RetryOutage, IsSoonWhileAPlanIsMadeAndLaterWhileWorkersAreMissing) {
  EXPECT_EQ(RetryOutage("loading", absl::ZeroDuration()), absl::Seconds(2));
  EXPECT_EQ(RetryOutage("", absl::Seconds(1)), absl::Seconds(2));
  EXPECT_EQ(RetryOutage("loading", absl::Minutes(5)), absl::Seconds(5));
  EXPECT_EQ(RetryOutage("waiting", absl::Seconds(1)), absl::Seconds(10));
  EXPECT_EQ(RetryOutage("waiting", absl::Minutes(5)), absl::Seconds(30));
}

}  // namespace
}  // namespace efedllm
