#include "incentive/trust.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "common/random.h"
#include "incentive/audit_policy.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kNow = 1'700'000'000;
constexpr int64_t kDay = 86'400;

TrustEvent Event(TrustEventKind kind, int64_t seconds = kNow, double weight = 1) {
  TrustEvent event;
  event.kind = kind;
  event.unix_seconds = seconds;
  event.weight = weight;
  event.evidence = "e1";
  return event;
}

TrustEvent DisputeWith(uint64_t peer, int64_t seconds = kNow) {
  TrustEvent event = Event(TrustEventKind::kDispute, seconds);
  event.peer = NodeId{peer};
  return event;
}

TrustRecord After(std::vector<TrustEvent> events, TrustRecord record = {}) {
  for (const TrustEvent& event : events) {
    record = ApplyTrustEvent(IncentiveRules(), record, event).record;
  }
  return record;
}

TrustRecord Trusted(double chunks = 300) {
  return After({Event(TrustEventKind::kAuditClean, kNow, chunks)});
}

TEST(Trust, ANewKeyIsOnProbationAndAuditedAlways) {
  const IncentiveRules rules;
  EXPECT_EQ(TrustRecord().state, TrustState::kProbation);
  EXPECT_EQ(AuditRatePpm(rules, TrustRecord()), kWhole);
  EXPECT_TRUE(MayWork(TrustRecord()));
}

TEST(Trust, IsEarnedByAuditedChunksAlone) {
  const IncentiveRules rules;
  TrustRecord record;
  std::optional<TrustTransition> transition;
  int chunks = 0;
  while (!transition && chunks < 1000) {
    record = After(
        {Event(TrustEventKind::kAnswered, kNow, 1000), Event(TrustEventKind::kInTime, kNow, 1000),
         Event(TrustEventKind::kVerifierClean, kNow, 1000)},
        record);
    EXPECT_EQ(record.state, TrustState::kProbation) << chunks;
    TrustChange change = ApplyTrustEvent(rules, record, Event(TrustEventKind::kAuditClean));
    record = change.record;
    transition = change.transition;
    ++chunks;
  }
  EXPECT_EQ(chunks, 64);
  EXPECT_EQ(record.state, TrustState::kTrusted);
  EXPECT_EQ(transition->from, TrustState::kProbation);
  EXPECT_THAT(transition->reason, HasSubstr("64 chunks were audited"));
}

TEST(Trust, AProvenLieEvictsAtOnceFromEveryState) {
  for (const TrustState state :
       {TrustState::kProbation, TrustState::kTrusted, TrustState::kQuarantined}) {
    TrustRecord record = Trusted(10'000);
    record.state = state;
    const TrustChange change =
        ApplyTrustEvent(IncentiveRules(), record, Event(TrustEventKind::kLie));
    EXPECT_EQ(change.record.state, TrustState::kEvicted);
    ASSERT_TRUE(change.transition);
    EXPECT_EQ(change.transition->evidence, "e1");
    EXPECT_EQ(change.record.evidence, "e1");
    EXPECT_FALSE(MayWork(change.record));
    EXPECT_EQ(RoutingShare(IncentiveRules(), change.record), 0);
  }
}

TEST(Trust, FlappingAndSlownessCostWorkAndNotHonour) {
  const IncentiveRules rules;
  const TrustRecord before = Trusted();
  TrustRecord record = before;
  for (int i = 0; i < 1000; ++i) {
    record =
        After({Event(TrustEventKind::kFailed, kNow + i), Event(TrustEventKind::kLate, kNow + i),
               Event(TrustEventKind::kAnswered, kNow + i)},
              record);
  }
  EXPECT_EQ(record.state, TrustState::kTrusted);
  EXPECT_NEAR(HonestyBound(rules, record), HonestyBound(rules, before), 1e-3);
  EXPECT_LT(RoutingShare(rules, record), 0.02);
  EXPECT_GT(RoutingShare(rules, before), 0.4);
  // And a day of good ones brings it back.
  for (int hour = 0; hour < 72; ++hour) {
    record = After({Event(TrustEventKind::kAnswered, kNow + 3600 * (hour + 1), 500),
                    Event(TrustEventKind::kInTime, kNow + 3600 * (hour + 1), 500)},
                   record);
  }
  EXPECT_GT(RoutingShare(rules, record), 0.95);
}

TEST(Trust, OneNeighbourAloneBringsNobodyDown) {
  TrustRecord record = Trusted();
  for (int i = 0; i < 1000; ++i) record = After({DisputeWith(1, kNow + i)}, record);
  EXPECT_EQ(record.state, TrustState::kTrusted);
  EXPECT_EQ(record.disputes.size(), 1u);
  record = After({DisputeWith(2)}, record);
  EXPECT_EQ(record.state, TrustState::kQuarantined);
}

TEST(Trust, OldDisputesAreForgotten) {
  const TrustRecord record =
      After({DisputeWith(1), DisputeWith(2, kNow + 91 * kDay)}, Trusted(1e5));
  EXPECT_EQ(record.state, TrustState::kTrusted);
  EXPECT_EQ(record.disputes.size(), 1u);
}

TEST(Trust, WithheldBytesQuarantine) {
  EXPECT_EQ(After({Event(TrustEventKind::kWithheld), Event(TrustEventKind::kWithheld)}).state,
            TrustState::kProbation);
  EXPECT_EQ(After({Event(TrustEventKind::kWithheld), Event(TrustEventKind::kWithheld),
                   Event(TrustEventKind::kWithheld)})
                .state,
            TrustState::kQuarantined);
}

TEST(Trust, AVerifierThatIsProvenWrongIsEvicted) {
  EXPECT_EQ(After({Event(TrustEventKind::kVerifierLie)}, Trusted()).state, TrustState::kEvicted);
}

TEST(Trust, APardonLeadsToProbationAndKeepsTheHistory) {
  const TrustRecord quarantined = After({DisputeWith(1), DisputeWith(2)}, Trusted());
  const TrustRecord pardoned = After({Event(TrustEventKind::kPardon)}, quarantined);
  EXPECT_EQ(pardoned.state, TrustState::kProbation);
  EXPECT_EQ(pardoned.pardons, 1u);
  EXPECT_TRUE(pardoned.disputes.empty());
  EXPECT_EQ(pardoned.clean_chunks, 0);
  EXPECT_EQ(AuditRatePpm(IncentiveRules(), pardoned), kWhole);
  // Not trusted by its old evidence: it is audited as often as a newcomer.
  EXPECT_EQ(After({Event(TrustEventKind::kAuditClean, kNow, 63)}, pardoned).state,
            TrustState::kProbation);
  EXPECT_EQ(After({Event(TrustEventKind::kAuditClean, kNow, 64)}, pardoned).state,
            TrustState::kTrusted);
}

TEST(Trust, OnlyWhatLooksLikeAFaultIsPardonedAfterEviction) {
  TrustEvent fault = Event(TrustEventKind::kLie);
  fault.fault = true;
  const TrustRecord faulty = After({fault}, Trusted());
  EXPECT_EQ(faulty.state, TrustState::kEvicted);
  EXPECT_TRUE(MayBePardoned(faulty).ok());
  const TrustRecord again = After({Event(TrustEventKind::kPardon)}, faulty);
  EXPECT_EQ(again.state, TrustState::kProbation);
  // The lie is in its evidence still, so that probation is longer.
  EXPECT_EQ(After({Event(TrustEventKind::kAuditClean, kNow, 64)}, again).state,
            TrustState::kProbation);
  EXPECT_EQ(After({Event(TrustEventKind::kAuditClean, kNow, 95)}, again).state,
            TrustState::kTrusted);
  const TrustRecord liar = After({Event(TrustEventKind::kLie)}, Trusted());
  EXPECT_FALSE(MayBePardoned(liar).ok());
  EXPECT_EQ(After({Event(TrustEventKind::kPardon)}, liar), liar);
  EXPECT_FALSE(MayBePardoned(TrustRecord()).ok());
}

TEST(Trust, FadesToProbationInALongAbsence) {
  const IncentiveRules rules;
  const TrustRecord record = Trusted(100);
  EXPECT_EQ(AgeTrust(rules, record, kNow + 30 * kDay).record.state, TrustState::kTrusted);
  const TrustChange change = AgeTrust(rules, record, kNow + 360 * kDay);
  EXPECT_EQ(change.record.state, TrustState::kProbation);
  EXPECT_THAT(change.transition->reason, HasSubstr("faded"));
  // Time that runs backwards changes nothing.
  EXPECT_EQ(AgeTrust(rules, record, kNow - kDay).record, record);
}

TEST(Trust, TheAuditRateFallsSmoothlyToTheFloor) {
  const IncentiveRules rules;
  uint64_t last = kWhole;
  TrustRecord record;
  for (int chunk = 1; chunk <= 5000; ++chunk) {
    record = After({Event(TrustEventKind::kAuditClean)}, record);
    const uint64_t rate = AuditRatePpm(rules, record);
    EXPECT_LE(rate, last);
    EXPECT_GE(rate, rules.audit_floor_ppm);
    EXPECT_LT(last - rate, 180'000u) << chunk;  // no cliff to wait for
    last = rate;
  }
  EXPECT_LT(last, rules.audit_floor_ppm + 2000);
}

TEST(Trust, SurvivesJson) {
  Random random(5);
  TrustRecord record;
  for (int i = 0; i < 300; ++i) {
    TrustEvent event =
        Event(static_cast<TrustEventKind>(random.Below(11)), kNow + i, 10 * random.Uniform());
    if (event.kind == TrustEventKind::kLie && random.Below(10) != 0) continue;
    event.peer = NodeId{random.Next()};
    record = After({event}, record);
    const auto json = nlohmann::json::parse(TrustToJson(record).dump());
    const auto again = TrustFromJson(json);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, record) << "seed 5, event " << i;
  }
  EXPECT_FALSE(TrustFromJson(nlohmann::json::array()).ok());
  nlohmann::json json = TrustToJson(record);
  json["state"] = "saint";
  EXPECT_FALSE(TrustFromJson(json).ok());
  json = TrustToJson(record);
  json["honesty"]["good"] = -1;
  EXPECT_FALSE(TrustFromJson(json).ok());
}

// Whatever happens to a node that never lies, it is never evicted, and one that is evicted never
// works again unless it is pardoned.
TEST(Trust, RandomHistoriesKeepTheRules) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Random random(seed);
    TrustRecord record;
    int64_t now = kNow;
    const bool liar = random.Below(2) == 0;
    bool lied = false;
    for (int i = 0; i < 300; ++i) {
      now += static_cast<int64_t>(random.Below(100'000));
      auto kind = static_cast<TrustEventKind>(random.Below(11));
      const bool lie = kind == TrustEventKind::kLie || kind == TrustEventKind::kVerifierLie;
      if (lie && (!liar || random.Below(20) != 0)) kind = TrustEventKind::kAuditClean;
      lied = lied || kind == TrustEventKind::kLie || kind == TrustEventKind::kVerifierLie;
      TrustEvent event = Event(kind, now, 1 + random.Uniform());
      event.peer = NodeId{random.Below(3)};
      const TrustChange change = ApplyTrustEvent(IncentiveRules(), record, event);
      EXPECT_EQ(change.transition.has_value(), change.record.state != record.state);
      if (!lied) EXPECT_NE(change.record.state, TrustState::kEvicted) << "seed " << seed;
      if (record.state == TrustState::kEvicted && kind != TrustEventKind::kPardon) {
        EXPECT_EQ(change.record.state, TrustState::kEvicted) << "seed " << seed;
      }
      const double bound = HonestyBound(IncentiveRules(), change.record);
      EXPECT_TRUE(bound >= 0 && bound <= 1) << "seed " << seed;
      record = change.record;
    }
  }
}

TEST(Trust, NamesReadBackAsWhatTheyName) {
  for (int i = 0; i < 4; ++i) {
    const auto state = static_cast<TrustState>(i);
    EXPECT_EQ(ParseTrustState(TrustStateName(state)), state);
  }
  for (int i = 0; i < 11; ++i) {
    const auto kind = static_cast<TrustEventKind>(i);
    EXPECT_EQ(ParseTrustEvent(TrustEventName(kind)), kind);
  }
  EXPECT_FALSE(ParseTrustState("saint"));
}

TEST(Trust, WhoGoesAwayFromAnAuditIsAuditedInFullAgain) {
  const IncentiveRules rules;
  TrustRecord record;
  record.state = TrustState::kTrusted;
  record.honesty.good = 1000;
  const TrustEvent away{.kind = TrustEventKind::kAway};
  const TrustChange change = ApplyTrustEvent(rules, record, away);
  EXPECT_EQ(change.record.state, TrustState::kProbation);
  EXPECT_EQ(change.record.honesty.bad, record.honesty.bad);
  EXPECT_EQ(ApplyTrustEvent(rules, change.record, away).record.state, TrustState::kProbation);
}

}  // namespace
}  // namespace efedllm
