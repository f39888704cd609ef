#include "coordinator/contribution_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "incentive/audit_policy.h"
#include "model/temp_dir.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr NodeId kAnn{11}, kBob{22};

ModelConfig SmallModel() {
  ModelConfig config;
  config.layers = 8;
  config.d_model = 256;
  config.heads = 8;
  config.kv_heads = 4;
  config.head_dim = 32;
  config.d_ffn = 512;
  config.vocab = 1024;
  config.context = 1024;
  return config;
}

// A book over a ledger in a folder of its own, and receipts that were never computed.
class ContributionBookTest : public ::testing::Test {
 protected:
  ContributionBookTest() { Open(); }

  void Open() {
    book_.reset();
    ledger_.reset();
    auto ledger = Ledger::Open(dir_.path() + "/ledger.db", clock_.WallNow());
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    ledger_ = *std::move(ledger);
    auto book = ContributionBook::Open(
        rules_,
        {.clock = clock_,
         .config = config_,
         .ledger = *ledger_,
         .owner = [](NodeId) { return "ann"; },
         .owners_of_layers =
             [](LayerRange l) { return std::vector<uint32_t>(l.last - l.first, 3); },
         .pick =
             [this](const SignedReceipt&, const std::vector<ClaimPtr>& claims) {
               std::vector<bool> picked;
               for (const ClaimPtr& claim : claims) {
                 picked.push_back(pick_);
                 if (pick_) picked_.push_back(claim);
               }
               return picked;
             },
         .keep =
             [this](const RefusedReceipt& refused) {
               return evidence_.Put(refused, clock_.WallNow());
             },
         .usage = [this] { return std::exchange(usage_, {}); },
         .bar = [this](NodeId node, const std::string& why) { barred_.emplace_back(node, why); },
         .readmit = [this](NodeId node) { readmitted_.push_back(node); },
         .safe_channels = safe_channels_});
    ASSERT_TRUE(book.ok()) << book.status();
    book_ = *std::move(book);
  }

  void Refuse(NodeId node, uint64_t number, ReceiptRefusal why) {
    RefusedReceipt refused;
    refused.receipt.receipt.node = node;
    refused.receipt.receipt.epoch = Epoch{3};
    refused.receipt.receipt.number = number;
    refused.why = why;
    refused.detail = absl::StrCat("no good: ", std::string(ReceiptRefusalName(why)));
    book_->OnRefused(refused);
  }

  // A receipt of so many whole chunks of a sequence.
  std::vector<ClaimPtr> Deliver(NodeId node, uint32_t chunks) {
    auto stage = std::make_shared<ReceiptStage>();
    stage->node = node;
    stage->assignment.epoch = Epoch{3};
    stage->assignment.layers = {0, 4};
    SignedReceipt receipt;
    receipt.receipt.node = node;
    receipt.receipt.epoch = Epoch{3};
    receipt.receipt.layers = {0, 4};
    receipt.receipt.number = numbers_[node]++;
    std::vector<ClaimPtr> claims;
    for (uint32_t i = 0; i < chunks; ++i) {
      ChunkClaim chunk{SequenceId{7}, i * kChunkTokens, kChunkTokens, {}, {}};
      receipt.receipt.chunks.push_back(chunk);
      claims.push_back(
          std::make_shared<const TakenClaim>(TakenClaim{stage, receipt.receipt.number, i, chunk}));
    }
    book_->OnReceipt(receipt, claims);
    return claims;
  }

  void Judge(const ClaimPtr& claim, AuditOutcome outcome) {
    AuditResult result;
    result.job.claim = claim;
    result.outcome = outcome;
    result.detail = "for a test";
    book_->OnAudit(result);
  }
  // Honest work until the node is trusted.
  void BecomeTrusted(NodeId node) {
    pick_ = true;
    for (uint64_t i = 0; i < 2 * rules_.probation_chunks && !IsTrusted(node); ++i) {
      for (const ClaimPtr& claim : Deliver(node, 1)) Judge(claim, AuditOutcome::kHonest);
    }
    ASSERT_TRUE(IsTrusted(node));
  }
  bool IsTrusted(NodeId node) { return Standing(node).trust.state == TrustState::kTrusted; }
  NodeStanding Standing(NodeId node) {
    for (const NodeStanding& standing : book_->Standings()) {
      if (standing.node == node) return standing;
    }
    return {};
  }

  void Later(absl::Duration duration) {
    clock_.Advance(duration);
    book_->Turn();
  }
  Micros Escrow(NodeId node) { return *ledger_->reader().Balance(EscrowAccount(node)); }
  Micros Balance(NodeId node) { return *ledger_->reader().Balance(NodeAccount(node)); }
  size_t Count(EntryKind kind) { return ledger_->reader().Latest({1000, kind, ""})->size(); }

  TempDir dir_;
  const EvidenceStore evidence_{dir_.path() + "/evidence"};
  ManualClock clock_;
  ModelConfig config_ = SmallModel();
  IncentiveRules rules_;
  std::unique_ptr<Ledger> ledger_;
  bool pick_ = false;
  bool safe_channels_ = true;
  std::vector<ClaimPtr> picked_;
  std::map<std::string, KeyUsage> usage_;
  std::vector<std::pair<NodeId, std::string>> barred_;
  std::vector<NodeId> readmitted_;
  std::map<NodeId, uint64_t> numbers_;
  std::unique_ptr<ContributionBook> book_;  // last: it borrows
};

TEST_F(ContributionBookTest, WorkIsPendingUntilItsEscrowIsOver) {
  Deliver(kAnn, 4);
  book_->Turn();
  const Micros pay = Escrow(kAnn);
  EXPECT_GT(pay, 0);
  EXPECT_EQ(Balance(kAnn), 0);
  Later(absl::Hours(static_cast<int64_t>(rules_.escrow_longest_hours)) + absl::Minutes(1));
  EXPECT_EQ(Escrow(kAnn), 0);
  EXPECT_EQ(Balance(kAnn), pay);
}

TEST_F(ContributionBookTest, TheAmountCanBeComputedAgainFromTheEntry) {
  Deliver(kAnn, 2);
  book_->Turn();
  const auto entries = ledger_->reader().Latest({1, EntryKind::kPending, ""});
  ASSERT_TRUE(entries.ok());
  ASSERT_EQ(entries->size(), 1u);
  const nlohmann::json memo = nlohmann::json::parse((*entries)[0].entry.memo);
  const auto factors = RewardFactorsFromJson(memo["factors"]);
  ASSERT_TRUE(factors.ok()) << factors.status();
  EXPECT_EQ(RewardMicros(*factors), Escrow(kAnn));
  EXPECT_EQ(factors->flops, (*entries)[0].entry.flops);
}

TEST_F(ContributionBookTest, WorkUnderAuditWaitsForIt) {
  pick_ = true;
  const std::vector<ClaimPtr> claims = Deliver(kAnn, 2);
  Judge(claims[0], AuditOutcome::kHonest);
  Later(absl::Hours(48));
  EXPECT_GT(Escrow(kAnn), 0);
  Judge(claims[1], AuditOutcome::kHonest);
  Later(absl::Hours(48));
  EXPECT_EQ(Escrow(kAnn), 0);
  EXPECT_GT(Balance(kAnn), 0);
}

TEST_F(ContributionBookTest, AnAuditMayBeQuickerThanTheBooking) {
  // As the runner's thread may be: the result is there before `pick` returns.
  pick_ = false;
  const std::vector<ClaimPtr> claims = Deliver(kAnn, 1);
  Judge(claims[0], AuditOutcome::kLied);
  book_->Turn();
  EXPECT_EQ(Count(EntryKind::kVoid), 1u);
}

TEST_F(ContributionBookTest, WorkOfANodeThatWentAwayIsVoidInTheEndWithoutBlame) {
  BecomeTrusted(kAnn);
  Judge(Deliver(kAnn, 1)[0], AuditOutcome::kAway);
  EXPECT_EQ(Standing(kAnn).trust.state, TrustState::kProbation);
  Later(absl::Hours(1));
  EXPECT_EQ(Count(EntryKind::kVoid), 0u);
  const Micros before = Escrow(kAnn);
  EXPECT_GT(before, 0);
  Later(absl::Hours(48));
  EXPECT_EQ(Count(EntryKind::kVoid), 1u);
  EXPECT_GT(Balance(kAnn), 0);  // of what was proven
  EXPECT_THAT(barred_, IsEmpty());
}

TEST_F(ContributionBookTest, AProvenLieVoidsPenalizesAndBars) {
  pick_ = true;
  const std::vector<ClaimPtr> claims = Deliver(kAnn, 1);
  book_->Turn();
  const Micros pay = Escrow(kAnn);
  Judge(claims[0], AuditOutcome::kLied);
  ASSERT_EQ(barred_.size(), 1u);
  EXPECT_EQ(barred_[0].first, kAnn);
  book_->Turn();
  EXPECT_EQ(Escrow(kAnn), 0);
  EXPECT_LE(Balance(kAnn), -pay);
  EXPECT_EQ(Count(EntryKind::kEvidence), 1u);
  EXPECT_FALSE(MayWork(Standing(kAnn).trust));
}

TEST_F(ContributionBookTest, ALiarsUnauditedWorkIsVoidToo) {
  BecomeTrusted(kAnn);
  pick_ = false;
  Deliver(kAnn, 3);
  pick_ = true;
  Judge(Deliver(kAnn, 1)[0], AuditOutcome::kLied);
  ASSERT_EQ(Standing(kAnn).trust.state, TrustState::kEvicted);
  Later(absl::Hours(48));
  EXPECT_EQ(Escrow(kAnn), 0);
  EXPECT_EQ(Count(EntryKind::kVoid), 2u);
}

TEST_F(ContributionBookTest, TrustSurvivesARestart) {
  BecomeTrusted(kAnn);
  Judge(Deliver(kBob, 1)[0], AuditOutcome::kLied);
  Later(absl::Minutes(2));
  const double before = Standing(kAnn).honesty_bound;
  barred_.clear();
  Open();
  EXPECT_TRUE(IsTrusted(kAnn));
  EXPECT_NEAR(Standing(kAnn).honesty_bound, before, 1e-6);
  EXPECT_THAT(barred_, ElementsAre(Pair(kBob, ::testing::_)));
}

TEST_F(ContributionBookTest, PendingPaySurvivesARestartAndIsPosted) {
  pick_ = true;  // its audit is lost with the process
  Deliver(kAnn, 4);
  book_->Turn();
  const Micros pay = Escrow(kAnn);
  Open();
  Later(absl::Hours(48));
  EXPECT_EQ(Balance(kAnn), pay);
}

TEST_F(ContributionBookTest, ADaysPayGoesToWhomTheNodeBelongs) {
  Deliver(kAnn, 4);
  Judge(Deliver(kBob, 1)[0], AuditOutcome::kLied);
  Later(absl::Hours(25));  // posted
  const Micros pay = Balance(kAnn);
  EXPECT_GT(pay, 0);
  Open();
  Later(absl::Hours(24));
  Later(absl::Minutes(1));  // once a day
  EXPECT_EQ(Balance(kAnn), 0);
  EXPECT_LT(Balance(kBob), 0);  // what a node owes is not its owner's
  EXPECT_EQ(*ledger_->reader().Balance(OwnerAccount("ann")), pay);
  EXPECT_EQ(Count(EntryKind::kSettlement), 1u);
  EXPECT_EQ(Count(EntryKind::kOwner), 2u);
  Open();
  Deliver(kAnn, 1);
  book_->Turn();
  EXPECT_EQ(Count(EntryKind::kOwner), 2u);
}

TEST_F(ContributionBookTest, LapsesLowerPayAndNotHonour) {
  Deliver(kAnn, 4);
  Deliver(kBob, 4);
  const double before = Standing(kAnn).honesty_bound;
  for (int i = 0; i < 20; ++i) book_->OnLapse(kAnn, TrustEventKind::kFailed);
  for (int i = 0; i < 20; ++i) book_->OnLapse(kAnn, TrustEventKind::kLate);
  book_->Turn();
  const Micros first = Escrow(kAnn);
  EXPECT_LT(book_->RoutingShare(kAnn), 0.75);
  EXPECT_EQ(book_->RoutingShare(kBob), 1);
  Deliver(kAnn, 4);
  Deliver(kBob, 4);
  book_->Turn();
  EXPECT_LT(Escrow(kAnn) - first, first);
  EXPECT_LT(Escrow(kAnn), Escrow(kBob));
  EXPECT_EQ(Standing(kAnn).honesty_bound, before);
  EXPECT_THAT(barred_, IsEmpty());
}

TEST_F(ContributionBookTest, AnUndecidableDisputeCostsBothTheirPayAndNobodyHisHonour) {
  const ClaimPtr up = Deliver(kAnn, 1)[0], down = Deliver(kBob, 1)[0];
  book_->OnDispute({Epoch{3}, 0, up, down, SequenceId{7}, 0, kChunkTokens});
  book_->Turn();
  EXPECT_EQ(Count(EntryKind::kVoid), 0u);  // one of them may yet be proven to lie
  Later(absl::Seconds(static_cast<int64_t>(rules_.escrow_seconds)));
  EXPECT_EQ(Count(EntryKind::kVoid), 2u);
  EXPECT_EQ(Balance(kAnn), 0);
  EXPECT_EQ(Balance(kBob), 0);
  EXPECT_THAT(barred_, IsEmpty());
}

TEST_F(ContributionBookTest, ADisputeWithAProvenLiarCostsNothing) {
  const ClaimPtr up = Deliver(kAnn, 1)[0], down = Deliver(kBob, 1)[0];
  book_->Turn();
  const Micros pay = Escrow(kAnn);
  book_->OnDispute({Epoch{3}, 0, up, down, SequenceId{7}, 0, kChunkTokens});
  Judge(down, AuditOutcome::kLied);
  Later(absl::Hours(25));
  EXPECT_EQ(Balance(kAnn), pay);
  EXPECT_LT(Balance(kBob), 0);
}

TEST_F(ContributionBookTest, WhoContradictsTheCoordinatorsOwnEyesLies) {
  book_->OnDispute({Epoch{3}, 0, nullptr, Deliver(kAnn, 1)[0], SequenceId{7}, 0, kChunkTokens});
  EXPECT_EQ(barred_.size(), 1u);
}

TEST_F(ContributionBookTest, AForgedReceiptIsALieAndALateOneIsNone) {
  Refuse(kAnn, 1, ReceiptRefusal::kUnknownStage);
  Refuse(kAnn, 1, ReceiptRefusal::kBehind);
  EXPECT_THAT(barred_, IsEmpty());
  Deliver(kAnn, 1);
  book_->Turn();
  const Micros pay = Escrow(kAnn);
  Refuse(kAnn, 1, ReceiptRefusal::kSignature);
  ASSERT_EQ(barred_.size(), 1u);
  EXPECT_THAT(barred_[0].second, HasSubstr("signature"));
  book_->Turn();
  EXPECT_LE(Balance(kAnn), -pay);
}

TEST_F(ContributionBookTest, ARefusedReceiptIsKeptAndBookedOnce) {
  Refuse(kAnn, 5, ReceiptRefusal::kNumber);
  Refuse(kAnn, 5, ReceiptRefusal::kNumber);  // sent again
  Refuse(kAnn, 6, ReceiptRefusal::kNotAsked);
  Refuse(kAnn, 7, ReceiptRefusal::kNotAsked);  // it is barred by then, and may write for ever
  book_->Turn();
  EXPECT_TRUE(book_->accepting().ok());
  const std::vector<std::string> kept = evidence_.List().value();
  EXPECT_EQ(kept.size(), 2u);
  EXPECT_EQ(Count(EntryKind::kEvidence), 2u);
  const std::string text = evidence_.Get(kept[1]).value();
  EXPECT_THAT(text, HasSubstr("no good: not asked"));
  EXPECT_THAT(text, HasSubstr("signed_bytes"));
  const auto booked = ledger_->reader().Find("evidence:" + kept[1]).value();
  ASSERT_TRUE(booked.has_value());
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  EXPECT_THAT(booked->entry.memo, HasSubstr(ToHex(Sha256({bytes, text.size()}))));
}

TEST_F(ContributionBookTest, ATimeThatCannotBeMayBeAClocksFault) {
  Refuse(kAnn, 0, ReceiptRefusal::kTime);
  EXPECT_EQ(barred_.size(), 1u);
  EXPECT_TRUE(book_->Pardon(kAnn).ok());
}

TEST_F(ContributionBookTest, AWrongSignatureProvesNothingWhereAnybodyMayHaveWrittenIt) {
  safe_channels_ = false;
  Open();
  Refuse(kAnn, 0, ReceiptRefusal::kSignature);
  EXPECT_THAT(barred_, IsEmpty());
  Refuse(kAnn, 0, ReceiptRefusal::kNotAsked);
  EXPECT_EQ(barred_.size(), 1u);
}

TEST_F(ContributionBookTest, KeysAreChargedForWhatTheyUsed) {
  usage_["k1"] = {.prompt_tokens = 100, .generated_tokens = 20, .flops = 3'000'000'000'000};
  Later(absl::Minutes(2));
  usage_["k1"] = {.prompt_tokens = 1, .flops = 1'000'000'000'000};
  Later(absl::Seconds(1));  // together with what comes within the next minute
  usage_["k1"] = {.prompt_tokens = 1, .flops = 1'000'000'000'000};
  Later(absl::Minutes(2));
  EXPECT_EQ(Count(EntryKind::kUsage), 2u);
  EXPECT_EQ(*ledger_->reader().Balance(ApiKeyAccount("k1")),
            -5 * static_cast<Micros>(rules_.charge_micros_per_tflop));
}

TEST_F(ContributionBookTest, PardonOfAnUnknownNodeIsRefused) {
  EXPECT_EQ(book_->Pardon(kAnn).code(), absl::StatusCode::kNotFound);
  Deliver(kAnn, 1);
  EXPECT_EQ(book_->Pardon(kAnn).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ContributionBookTest, RulesGoForwardOnly) {
  rules_.version = 3;
  Open();
  rules_.version = 2;
  const auto older = ContributionBook::Open(rules_, {.clock = clock_,
                                                     .config = config_,
                                                     .ledger = *ledger_,
                                                     .owner = {},
                                                     .owners_of_layers = {},
                                                     .pick = {},
                                                     .keep = {},
                                                     .usage = {},
                                                     .bar = {},
                                                     .readmit = {}});
  EXPECT_EQ(older.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(older.status().message()), HasSubstr("version"));
  rules_.version = 3;
}

}  // namespace
}  // namespace efedllm
