#include "worker/edge_watch.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);
absl::Time At(int milliseconds) { return kStart + absl::Milliseconds(milliseconds); }

TEST(EdgeWatch, AsksNothingWhereNothingWasSent) {
  EdgeWatch watch;
  watch.Received(At(0));
  EXPECT_FALSE(watch.Ask(At(10'000)));
}

TEST(EdgeWatch, AsksNothingWhileFramesFlow) {
  EdgeWatch watch;
  for (int i = 0; i < 100; ++i) {
    watch.Sending(1000, At(i * 100));
    watch.Sent(At(i * 100 + 1));
    EXPECT_FALSE(watch.Ask(At(i * 100 + 99)));
  }
}

TEST(EdgeWatch, AsksOnceAfterAPause) {
  EdgeWatch watch;
  watch.Sending(1000, At(0));
  watch.Sent(At(1));
  EXPECT_FALSE(watch.Ask(At(200)));
  const std::optional<absl::Duration> patience = watch.Ask(At(300));
  ASSERT_TRUE(patience);
  EXPECT_LT(*patience, absl::Seconds(1));
  EXPECT_FALSE(watch.Ask(At(60'000)));
}

TEST(EdgeWatch, AsksAgainWhileAFrameIsNotTaken) {
  EdgeWatch watch;
  watch.Sending(1000, At(0));
  EXPECT_TRUE(watch.Ask(At(300)));
  EXPECT_FALSE(watch.Ask(At(1000)));
  EXPECT_TRUE(watch.Ask(At(2000)));
  watch.Sent(At(2001));
  EXPECT_FALSE(watch.Ask(At(10'000)));
}

TEST(EdgeWatch, HasPatienceWithWhatASlowLinkStillCarries) {
  EdgeWatch watch;
  watch.Sending(4'000'000, At(0));
  watch.Sent(At(1));
  EXPECT_GT(watch.Ask(At(300)), absl::Seconds(4));
  watch.Sending(1000, At(6000));
  watch.Sent(At(6001));
  EXPECT_LT(watch.Ask(At(6300)), absl::Seconds(1));
}

}  // namespace
}  // namespace efedllm
