#include "incentive/audit_policy.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "common/random.h"

namespace efedllm {
namespace {

using Node = AuditVerdict::Node;
using Verifier = AuditVerdict::Verifier;

LotterySecret SecretOf(uint64_t seed) {
  LotterySecret secret;
  Random random(seed);
  for (uint8_t& byte : secret) byte = static_cast<uint8_t>(random.Next());
  return secret;
}

ChunkTicket TicketOf(uint64_t number) {
  ChunkTicket ticket;
  ticket.node = NodeId{7};
  ticket.epoch = Epoch{3};
  ticket.receipt = number;
  return ticket;
}

Sha256Digest DigestOf(uint8_t v) {
  Sha256Digest digest = {};
  digest[0] = v;
  return digest;
}

TEST(AuditLottery, PicksTheShareThatItIsAskedFor) {
  const LotterySecret secret = SecretOf(1);
  for (const uint64_t share : {1000u, 50'000u, 100'000u, 500'000u}) {
    constexpr int kTickets = 40'000;
    int picked = 0;
    for (int i = 0; i < kTickets; ++i) {
      picked += Wins(Draw(secret, LotteryPurpose::kAudit, TicketOf(i)), share) ? 1 : 0;
    }
    const double p = static_cast<double>(share) * 1e-6;
    EXPECT_NEAR(picked, kTickets * p, 5 * std::sqrt(kTickets * p * (1 - p))) << share;
  }
  EXPECT_TRUE(Wins(UINT64_MAX, kWhole));
  EXPECT_FALSE(Wins(0, 0));
}

TEST(AuditLottery, EveryPartOfATicketAndEveryPurposeDrawsAnew) {
  const LotterySecret secret = SecretOf(2);
  ChunkTicket ticket = TicketOf(1);
  std::set<uint64_t> draws = {Draw(secret, LotteryPurpose::kAudit, ticket)};
  draws.insert(Draw(secret, LotteryPurpose::kVerifier, ticket));
  draws.insert(Draw(SecretOf(3), LotteryPurpose::kAudit, ticket));
  ticket.chunk = 1;
  draws.insert(Draw(secret, LotteryPurpose::kAudit, ticket));
  ticket.outputs[31] = 1;
  draws.insert(Draw(secret, LotteryPurpose::kAudit, ticket));
  ticket.epoch = Epoch{4};
  draws.insert(Draw(secret, LotteryPurpose::kAudit, ticket));
  ticket.node = NodeId{8};
  draws.insert(Draw(secret, LotteryPurpose::kAudit, ticket));
  EXPECT_EQ(draws.size(), 7u);
  EXPECT_NE(LotteryCommitment(SecretOf(2)), LotteryCommitment(SecretOf(3)));
}

std::vector<VerifierCandidate> SomeCandidates() {
  const auto candidate = [](uint64_t node, const char* owner) {
    return VerifierCandidate{NodeId{node}, owner, true, true, TrustState::kTrusted};
  };
  return {candidate(1, "ann"), candidate(2, "bob"), candidate(3, "bob"), candidate(4, "bob"),
          candidate(5, "cid"), candidate(6, "dan"), candidate(7, "eve"), candidate(8, "fay")};
}

TEST(ChooseVerifier, TakesTrustedNodesOfOtherOwnersThatHoldTheLayers) {
  std::vector<VerifierCandidate> candidates = SomeCandidates();
  candidates[4].holds_layers = false;
  candidates[5].same_numerics = false;
  candidates[6].state = TrustState::kProbation;
  candidates[7].state = TrustState::kQuarantined;
  const std::string ann = "ann", bob = "bob";
  Random random(3);
  for (int i = 0; i < 100; ++i) {
    const auto chosen = ChooseVerifier(candidates, {ann}, random.Next());
    ASSERT_TRUE(chosen);
    EXPECT_EQ(candidates[*chosen].owner, "bob");
    EXPECT_EQ(ChooseVerifier(candidates, {ann, bob}, random.Next()), std::nullopt);
  }
  EXPECT_EQ(ChooseVerifier({}, {}, 1), std::nullopt);
}

TEST(ChooseVerifier, MoreKeysOfAnOwnerAreNoMoreChances) {
  const std::vector<VerifierCandidate> candidates = SomeCandidates();
  Random random(4);
  std::array<int, 8> counts = {};
  constexpr int kDraws = 60'000;
  for (int i = 0; i < kDraws; ++i) ++counts[*ChooseVerifier(candidates, {}, random.Next())];
  const int bob = counts[1] + counts[2] + counts[3];
  EXPECT_NEAR(bob, kDraws / 6, 500);
  EXPECT_NEAR(counts[0], kDraws / 6, 500);
  EXPECT_NEAR(counts[2], kDraws / 18, 300);
}

// A table: who answers what, and who is then believed.
TEST(JudgeAudit, TheCoordinatorDecides) {
  const Sha256Digest good = DigestOf(1), bad = DigestOf(2), other = DigestOf(3);
  AuditCase audit;
  audit.claimed = good;
  EXPECT_EQ(JudgeAudit(audit, true).next, AuditStep::kAskFirst);
  audit.first = good;
  EXPECT_EQ(JudgeAudit(audit, true).node, Node::kHonest);
  EXPECT_EQ(JudgeAudit(audit, true).first, Verifier::kUnchecked);
  audit.recheck = true;
  EXPECT_EQ(JudgeAudit(audit, true).next, AuditStep::kAskCoordinator);
  audit.coordinator = good;
  EXPECT_EQ(JudgeAudit(audit, true).first, Verifier::kRight);

  // An accusing verifier, an honest node.
  audit = {};
  audit.claimed = good;
  audit.first = bad;
  EXPECT_EQ(JudgeAudit(audit, true).next, AuditStep::kAskSecond);
  EXPECT_EQ(JudgeAudit(audit, false).next, AuditStep::kAskCoordinator);
  audit.second = good;
  EXPECT_EQ(JudgeAudit(audit, true).next, AuditStep::kAskCoordinator);
  audit.coordinator = good;
  AuditVerdict verdict = JudgeAudit(audit, true);
  EXPECT_EQ(verdict.node, Node::kHonest);
  EXPECT_EQ(verdict.first, Verifier::kLied);
  EXPECT_EQ(verdict.second, Verifier::kRight);

  // Two colluding accusers do no better.
  audit.second = bad;
  verdict = JudgeAudit(audit, true);
  EXPECT_EQ(verdict.node, Node::kHonest);
  EXPECT_EQ(verdict.second, Verifier::kLied);

  // A lying node and a verifier that covers it: both are found when the answer is checked.
  audit = {};
  audit.claimed = bad;
  audit.first = bad;
  audit.recheck = true;
  audit.coordinator = good;
  EXPECT_EQ(JudgeAudit(audit, true).next, AuditStep::kCoordinatorAgain);
  audit.coordinator_again = good;
  verdict = JudgeAudit(audit, true);
  EXPECT_EQ(verdict.node, Node::kLied);
  EXPECT_EQ(verdict.first, Verifier::kLied);

  // The coordinator's own memory is bad: nobody is accused.
  audit.coordinator_again = other;
  verdict = JudgeAudit(audit, true);
  EXPECT_EQ(verdict.next, AuditStep::kDone);
  EXPECT_EQ(verdict.node, Node::kUndecidable);
  EXPECT_EQ(verdict.first, Verifier::kUnchecked);
}

// Nobody who answers with the right digest is ever said to lie, whatever the others answer; and a
// case comes to an end after at most five steps.
TEST(JudgeAudit, NeverAccusesWhoIsRight) {
  const Sha256Digest right = DigestOf(0);
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    AuditCase audit;
    audit.claimed = DigestOf(static_cast<uint8_t>(random.Below(3)));
    audit.recheck = random.Below(2) == 0;
    const bool second_available = random.Below(2) == 0;
    AuditVerdict verdict = JudgeAudit(audit, second_available);
    int steps = 0;
    for (; verdict.next != AuditStep::kDone; ++steps) {
      ASSERT_LT(steps, 5) << "seed " << seed;
      const Sha256Digest answer = DigestOf(static_cast<uint8_t>(random.Below(3)));
      if (verdict.next == AuditStep::kAskFirst) audit.first = answer;
      if (verdict.next == AuditStep::kAskSecond) audit.second = answer;
      if (verdict.next == AuditStep::kAskCoordinator) audit.coordinator = right;
      if (verdict.next == AuditStep::kCoordinatorAgain) audit.coordinator_again = right;
      verdict = JudgeAudit(audit, second_available);
    }
    if (audit.claimed == right) EXPECT_EQ(verdict.node, Node::kHonest) << "seed " << seed;
    if (verdict.node == Node::kLied) EXPECT_NE(audit.claimed, right) << "seed " << seed;
    if (audit.first == right) EXPECT_NE(verdict.first, Verifier::kLied) << "seed " << seed;
    if (audit.second == right) EXPECT_NE(verdict.second, Verifier::kLied) << "seed " << seed;
  }
}

TEST(DecidePay, WaitsForTheWindowAndForOpenAudits) {
  const IncentiveRules rules;
  PendingChunk chunk;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kTrusted), PayDecision::kWait);
  chunk.age_seconds = 600;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kTrusted), PayDecision::kWait);
  chunk.later_chunks = 128;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kTrusted), PayDecision::kPost);
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kQuarantined), PayDecision::kWait);
  chunk.age_seconds = 599;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kTrusted), PayDecision::kWait);
  chunk.age_seconds = 86'400;
  chunk.later_chunks = 0;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kProbation), PayDecision::kPost);
  chunk.picked = true;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kProbation), PayDecision::kWait);
  chunk.verified = true;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kProbation), PayDecision::kPost);
}

TEST(DecidePay, ALiarKeepsOnlyWhatWasVerified) {
  const IncentiveRules rules;
  PendingChunk chunk;
  chunk.age_seconds = 1'000'000;
  chunk.later_chunks = 1000;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kEvicted), PayDecision::kVoid);
  chunk.picked = chunk.verified = true;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kEvicted), PayDecision::kPost);
  chunk.disproved = true;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kTrusted), PayDecision::kVoid);
}

TEST(PayDecision, NobodyGainsByGoingAwayWhenAnAuditComes) {
  const IncentiveRules rules;
  PendingChunk chunk{.away = true,
                     .age_seconds = static_cast<int64_t>(rules.escrow_seconds),
                     .later_chunks = rules.escrow_chunks};
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kProbation), PayDecision::kWait);
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kTrusted), PayDecision::kPost);
  chunk.later_chunks = 0;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kTrusted), PayDecision::kWait);
  chunk.age_seconds = static_cast<int64_t>(rules.escrow_longest_hours) * 3600;
  EXPECT_EQ(DecidePay(rules, chunk, TrustState::kTrusted), PayDecision::kVoid);
}

}  // namespace
}  // namespace efedllm
