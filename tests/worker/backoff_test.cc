#include "worker/backoff.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

TEST(Backoff, DoublesUpToTheMostWithJitterBelow) {
  Backoff backoff(absl::Milliseconds(500), absl::Seconds(15), 1);
  absl::Duration full = absl::Milliseconds(500);
  for (int i = 0; i < 12; ++i) {
    const absl::Duration wait = backoff.Next();
    EXPECT_GE(wait, full / 2);
    EXPECT_LE(wait, full);
    full = std::min(full * 2, absl::Seconds(15));
  }
}

TEST(Backoff, StartsOverAfterASuccess) {
  Backoff backoff(absl::Milliseconds(500), absl::Seconds(15), 1);
  for (int i = 0; i < 9; ++i) backoff.Next();
  backoff.Reset();
  EXPECT_LE(backoff.Next(), absl::Milliseconds(500));
}

}  // namespace
}  // namespace efedllm
