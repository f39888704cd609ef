#include "cluster/ping_filter.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

constexpr absl::Duration kAhead = absl::Hours(3);
const absl::Time kStart = absl::FromUnixSeconds(1'700'000'000);

// A ping whose way there and back takes so long, by a peer whose clock is ahead.
void AddPing(PingFilter& filter, absl::Duration there, absl::Duration back,
             absl::Duration ahead = kAhead) {
  filter.Add(kStart, kStart + there + back, kStart + there + ahead);
}

TEST(PingFilter, TakesTheClockFromTheQuickestPing) {
  PingFilter filter;
  EXPECT_TRUE(filter.empty());
  AddPing(filter, absl::Milliseconds(90), absl::Milliseconds(2));
  AddPing(filter, absl::Milliseconds(2), absl::Milliseconds(2));
  AddPing(filter, absl::Milliseconds(1), absl::Milliseconds(60));
  EXPECT_EQ(filter.rtt(), absl::Milliseconds(4));
  EXPECT_EQ(filter.offset(), kAhead);
}

TEST(PingFilter, ForgetsOldPings) {
  PingFilter filter;
  AddPing(filter, absl::Milliseconds(1), absl::Milliseconds(1));
  for (int i = 0; i < 16; ++i) {
    AddPing(filter, absl::Milliseconds(5), absl::Milliseconds(5), -kAhead);
  }
  EXPECT_EQ(filter.rtt(), absl::Milliseconds(10));
  EXPECT_EQ(filter.offset(), -kAhead);
}

TEST(PingFilter, IgnoresAPingAcrossAChangeOfOurClock) {
  PingFilter filter;
  filter.Add(kStart, kStart - absl::Hours(1), kStart);
  EXPECT_TRUE(filter.empty());
}

}  // namespace
}  // namespace efedllm
