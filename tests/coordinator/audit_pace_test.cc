#include "coordinator/audit_pace.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

constexpr absl::Duration kBurst = absl::Milliseconds(300);
constexpr absl::Time kStart = absl::UnixEpoch();

TEST(AuditPace, GoesOnAtOnceWithWhatIsSavedUp) {
  AuditPace pace(0.1, kBurst);
  EXPECT_TRUE(pace.MayBegin(kStart, absl::ZeroDuration(), false));
  EXPECT_TRUE(pace.MayBegin(kStart, absl::Milliseconds(299), false));
  EXPECT_FALSE(pace.MayBegin(kStart, absl::Milliseconds(300), false));
}

TEST(AuditPace, WhatBeganGoesOnOnCredit) {
  AuditPace pace(0.1, kBurst);
  EXPECT_TRUE(pace.MayGoOn(kStart, absl::ZeroDuration(), false));
  EXPECT_TRUE(pace.MayGoOn(kStart, absl::Milliseconds(599), false));
  EXPECT_FALSE(pace.MayGoOn(kStart, absl::Milliseconds(600), false));
  // It is paid for before another begins.
  EXPECT_FALSE(pace.MayBegin(kStart + absl::Milliseconds(2900), absl::Milliseconds(600), false));
  EXPECT_TRUE(pace.MayBegin(kStart + absl::Milliseconds(3100), absl::Milliseconds(600), false));
}

TEST(AuditPace, TakesItsShareAndNoMore) {
  AuditPace pace(0.1, kBurst);
  const absl::Duration step = absl::Milliseconds(20);
  absl::Duration used;
  absl::Time now = kStart;
  for (; now < kStart + absl::Seconds(100); now += absl::Milliseconds(10)) {
    if (pace.MayBegin(now, used, false)) used += step;
  }
  EXPECT_LE(used, 0.1 * absl::Seconds(100) + kBurst + step);
  EXPECT_GE(used, 0.1 * absl::Seconds(100));
}

TEST(AuditPace, WhatNobodyNeededIsNotCounted) {
  AuditPace pace(0.1, kBurst);
  EXPECT_TRUE(pace.MayBegin(kStart, absl::ZeroDuration(), true));
  EXPECT_TRUE(pace.MayBegin(kStart, absl::Seconds(50), true));
  EXPECT_TRUE(pace.MayBegin(kStart, absl::Seconds(50), false));
  EXPECT_TRUE(pace.MayBegin(kStart, absl::Seconds(51), true));
}

TEST(AuditPace, WithoutAShareItWaitsUntilNobodyNeedsTheProcessor) {
  AuditPace pace(0, absl::ZeroDuration());
  EXPECT_FALSE(pace.MayBegin(kStart, absl::ZeroDuration(), false));
  EXPECT_FALSE(pace.MayBegin(kStart + absl::Hours(1), absl::ZeroDuration(), false));
  EXPECT_TRUE(pace.MayBegin(kStart + absl::Hours(1), absl::ZeroDuration(), true));
}

}  // namespace
}  // namespace efedllm
