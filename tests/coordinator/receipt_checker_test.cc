// Two stages in one chain whose receipts the test writes, honest and not.
#include "coordinator/receipt_checker.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

constexpr Epoch kEpoch{5};
constexpr SequenceId kA{1}, kB{2};

SigningKey NewKey(const std::string& name) {
  return SigningKey::OpenOrCreate(testing::TempDir() + "/receipt_checker_test_" + name + ".key")
      .value();
}

class Sink final : public ReceiptSink {
 public:
  void OnReceipt(const SignedReceipt&,
                 const std::vector<std::shared_ptr<const TakenClaim>>& claims) override {
    taken += claims.size();
  }
  void OnAgreed(const std::shared_ptr<const TakenClaim>&) override { ++agreed; }
  void OnDispute(const EdgeDispute& dispute) override { disputes.push_back(dispute); }
  void OnRefused(const RefusedReceipt& receipt) override {
    ++refused[receipt.why];
    detail = receipt.detail;
  }

  size_t taken = 0, agreed = 0;
  std::vector<EdgeDispute> disputes;
  std::map<ReceiptRefusal, int> refused;
  std::string detail;  // of the last of them
};

// The rows of boundary b: what the coordinator sends (0), what is between the stages, what returns.
std::vector<RowSide> Rows(const Step& step, int boundary, const std::string& flavour = "") {
  std::vector<RowSide> rows;
  for (const SequenceSpan& span : step.spans) {
    for (uint32_t i = 0; i < span.tokens; ++i) {
      const std::string text =
          absl::StrCat(span.sequence.v, "/", span.first_position + i, "/", boundary, flavour);
      rows.push_back({RowDigest(1, text), 1, 10});
    }
  }
  return rows;
}

// An honest worker's side of things.
struct Stage {
  SigningKey key;
  std::shared_ptr<const ReceiptStage> facts;
  ChunkRecord record;
  std::vector<ClosedChunk> closed;
  uint64_t number = 0;

  void Compute(const Step& step, const std::string& output_flavour = "",
               const std::string& input_flavour = "") {
    const int boundary = static_cast<int>(facts->assignment.stage);
    const std::vector<RowSide> in = Rows(step, boundary, input_flavour);
    const std::vector<RowSide> out = Rows(step, boundary + 1, output_flavour);
    std::vector<RecordedRow> rows;
    for (size_t i = 0; i < in.size(); ++i) rows.push_back({in[i], out[i]});
    record.Pass(step, rows, closed);
  }
  Receipt Unsigned() {
    Receipt receipt;
    receipt.node = facts->node;
    receipt.epoch = kEpoch;
    receipt.stage = facts->assignment.stage;
    receipt.layers = facts->assignment.layers;
    receipt.manifest = facts->manifest;
    receipt.number = number++;
    for (const ClosedChunk& chunk : closed) receipt.chunks.push_back(chunk.claim);
    closed.clear();
    return receipt;
  }
  SignedReceipt Sign() { return SignReceipt(Unsigned(), key); }
};

class ReceiptCheckerTest : public testing::Test {
 protected:
  ReceiptCheckerTest() {
    ReceiptChain chain;
    for (uint32_t i = 0; i < 2; ++i) {
      Stage& stage = stages_.emplace_back(Stage{NewKey(absl::StrCat("node", i)), nullptr, {}, {}});
      auto facts = std::make_shared<ReceiptStage>();
      facts->node = NodeOfPublicKey(stage.key.public_key());
      facts->assignment.epoch = kEpoch;
      facts->assignment.stage = i;
      facts->assignment.layers = {2 * i, 2 * i + 2};
      facts->manifest = ManifestOf(facts->assignment);
      stage.facts = facts;
      chain.stages.push_back(facts);
    }
    checker_.Start(sink_);
    checker_.Begin(kEpoch, {chain});
  }

  Step MakeStep(std::vector<SequenceSpan> spans, std::vector<SequenceTrim> trims = {}) {
    Step step;
    step.epoch = kEpoch;
    step.id = StepId{++steps_};
    step.spans = std::move(spans);
    step.trims = std::move(trims);
    return step;
  }
  void Submit(const Step& step) { checker_.Submitted(kEpoch, 0, step, Rows(step, 0)); }
  void Return(const Step& step) { checker_.Returned(kEpoch, 0, step.id, true, Rows(step, 2)); }
  // A step that all compute as they should.
  void Pass(const Step& step) {
    Submit(step);
    for (Stage& stage : stages_) stage.Compute(step);
    Return(step);
  }
  bool Take(size_t stage, const SignedReceipt& receipt) {
    const ReceiptAnswer answer = checker_.Take(receipt, stages_[stage].key.public_key());
    EXPECT_EQ(answer.number, receipt.receipt.number);
    checker_.Flush();
    if (!answer.countersignature) return false;
    EXPECT_TRUE(
        Verify(checker_.public_key(), CountersignedBytes(receipt), *answer.countersignature));
    return true;
  }

  Sink sink_;
  ManualClock clock_;
  ReceiptChecker checker_{NewKey("coordinator"), clock_};
  std::vector<Stage> stages_;
  uint64_t steps_ = 0;
};

TEST_F(ReceiptCheckerTest, HonestReceiptsAreTakenAndAgree) {
  Pass(MakeStep({{kA, 0, 100}, {kB, 0, 10}}));
  Pass(MakeStep({{kA, 100, 30}, {kB, 10, 1}}));
  Pass(MakeStep({{kA, 128, 5}}, {{kB, 0}}));
  EXPECT_TRUE(Take(1, stages_[1].Sign()));
  EXPECT_EQ(sink_.agreed, 0u);  // the other has not spoken yet
  EXPECT_TRUE(Take(0, stages_[0].Sign()));
  EXPECT_EQ(sink_.taken, 6u);  // A's first two chunks, and all of B
  EXPECT_EQ(sink_.agreed, 6u);
  EXPECT_TRUE(sink_.disputes.empty());
  EXPECT_TRUE(sink_.refused.empty());
}

TEST_F(ReceiptCheckerTest, AReceiptMayComeBeforeTheResultThatSettlesIt) {
  Pass(MakeStep({{kA, 0, 64}}));
  const Step step = MakeStep({{kA, 64, 1}});
  Submit(step);
  for (Stage& stage : stages_) stage.Compute(step);
  for (size_t i : {0, 1}) EXPECT_TRUE(Take(i, stages_[i].Sign()));
  EXPECT_EQ(sink_.agreed, 0u);
  Return(step);
  checker_.Flush();
  EXPECT_EQ(sink_.agreed, 2u);
}

TEST_F(ReceiptCheckerTest, GuessesThatAreTakenBackAreNoMatter) {
  const Step guesses = MakeStep({{kA, 0, 70}}), next = MakeStep({{kA, 60, 8}});
  Pass(guesses);
  Pass(next);
  Pass(MakeStep({{kA, 68, 1}}));
  for (size_t i : {0, 1}) EXPECT_TRUE(Take(i, stages_[i].Sign()));
  EXPECT_EQ(sink_.agreed, 2u);
}

TEST_F(ReceiptCheckerTest, NumbersHaveNoGapsAndNoRepeats) {
  for (uint32_t i = 0; i < 4; ++i) {
    Pass(MakeStep({{SequenceId{i + 1}, 0, 1}}));
    Pass(MakeStep({}, {{SequenceId{i + 1}, 0}}));
  }
  Stage& stage = stages_[0];
  std::vector<ClosedChunk> closed = std::exchange(stage.closed, {});
  const auto next = [&](uint64_t number) {
    stage.closed = {closed.back()};
    closed.pop_back();
    stage.number = number;
    return stage.Sign();
  };
  const SignedReceipt first = next(0);
  EXPECT_TRUE(Take(0, first));
  EXPECT_TRUE(Take(0, first));  // its answer got lost
  EXPECT_EQ(sink_.taken, 1u);
  EXPECT_FALSE(Take(0, next(2)));
  EXPECT_FALSE(Take(0, next(0)));
  EXPECT_TRUE(Take(0, next(1)));
  EXPECT_EQ(sink_.refused[ReceiptRefusal::kNumber], 2);
  EXPECT_EQ(checker_.counters().taken, 2u);
}

TEST_F(ReceiptCheckerTest, ForgeriesAreRefused) {
  Pass(MakeStep({{kA, 0, 3}}));
  Pass(MakeStep({}, {{kA, 0}}));
  Stage& stage = stages_[0];
  const Receipt receipt = stage.Unsigned();
  EXPECT_FALSE(Take(0, SignReceipt(receipt, stages_[1].key)));
  SignedReceipt changed = SignReceipt(receipt, stage.key);
  ++changed.receipt.chunks[0].tokens;
  EXPECT_FALSE(Take(0, changed));
  EXPECT_EQ(sink_.refused[ReceiptRefusal::kSignature], 2);
  EXPECT_TRUE(Take(0, SignReceipt(receipt, stage.key)));
}

TEST_F(ReceiptCheckerTest, OtherWeightsAndOtherEpochsAreRefused) {
  Pass(MakeStep({{kA, 0, 3}}));
  Pass(MakeStep({}, {{kA, 0}}));
  Stage& stage = stages_[0];
  Receipt receipt = stage.Unsigned();
  receipt.epoch = Epoch{4};
  EXPECT_FALSE(Take(0, SignReceipt(receipt, stage.key)));
  EXPECT_EQ(sink_.refused[ReceiptRefusal::kUnknownStage], 1);
  receipt.epoch = kEpoch;
  receipt.manifest[0] ^= 1;
  EXPECT_FALSE(Take(0, SignReceipt(receipt, stage.key)));
  receipt.manifest[0] ^= 1;
  ++receipt.number;
  ++receipt.layers.last;
  EXPECT_FALSE(Take(0, SignReceipt(receipt, stage.key)));
  EXPECT_EQ(sink_.refused[ReceiptRefusal::kManifest], 2);
}

TEST_F(ReceiptCheckerTest, NobodyComputesForLongerThanThereWasTime) {
  const auto claim = [this](absl::Duration under_way, uint64_t micros) {
    const Step step = MakeStep({{kA, 0, 3}}, {});
    Submit(step);
    for (Stage& stage : stages_) stage.Compute(step);
    clock_.Advance(under_way);
    Return(step);
    Pass(MakeStep({}, {{kA, 0}}));
    Receipt receipt = stages_[0].Unsigned();
    receipt.compute_micros = micros;
    return Take(0, SignReceipt(receipt, stages_[0].key));
  };
  EXPECT_TRUE(claim(absl::Seconds(1), 1'400'000));  // a clock may be a little off
  EXPECT_TRUE(claim(absl::Seconds(10), 10'000'000));
  clock_.Advance(absl::Hours(1));  // nobody works
  EXPECT_FALSE(claim(absl::Seconds(1), 2'000'000));
  EXPECT_FALSE(claim(absl::Seconds(1), UINT64_MAX));
  EXPECT_EQ(sink_.refused[ReceiptRefusal::kTime], 2);
  EXPECT_EQ(checker_.counters().taken, 2u);
}

TEST_F(ReceiptCheckerTest, NobodyIsPaidForWhatNobodyAsked) {
  Pass(MakeStep({{kA, 10, 20}}));
  Pass(MakeStep({}, {{kA, 0}}));
  Stage& stage = stages_[0];
  const Receipt honest = stage.Unsigned();
  const auto with = [&](auto change) {
    Receipt receipt = honest;
    receipt.number = stage.number++;
    change(receipt);
    return SignReceipt(receipt, stage.key);
  };
  EXPECT_TRUE(Take(0, SignReceipt(honest, stage.key)));
  EXPECT_FALSE(Take(0, with([](Receipt&) {})));  // again
  EXPECT_FALSE(Take(0, with([](Receipt& r) { r.chunks[0].sequence = SequenceId{7}; })));
  EXPECT_FALSE(Take(0, with([](Receipt& r) { r.chunks[0].first_position = 9; })));
  EXPECT_EQ(sink_.refused[ReceiptRefusal::kNotAsked], 3);
  EXPECT_EQ(sink_.detail,
            "nobody asked for positions [9, 29) of sequence 1 here, or they were claimed before");
}

TEST_F(ReceiptCheckerTest, TwiceInOneReceiptIsTwiceToo) {
  Pass(MakeStep({{kA, 10, 20}}));
  Pass(MakeStep({}, {{kA, 0}}));
  Receipt receipt = stages_[0].Unsigned();
  receipt.chunks.push_back(receipt.chunks[0]);
  EXPECT_FALSE(Take(0, SignReceipt(receipt, stages_[0].key)));
  EXPECT_EQ(sink_.taken, 0u);
}

TEST_F(ReceiptCheckerTest, NeighboursWhoSayOtherThingsAreInDispute) {
  const Step step = MakeStep({{kA, 0, 3}});
  Submit(step);
  stages_[0].Compute(step, "other");
  stages_[1].Compute(step);
  Return(step);
  Pass(MakeStep({}, {{kA, 0}}));
  for (size_t i : {0, 1}) EXPECT_TRUE(Take(i, stages_[i].Sign()));
  ASSERT_EQ(sink_.disputes.size(), 1u);
  EXPECT_EQ(sink_.disputes[0].upstream->stage, stages_[0].facts);
  EXPECT_EQ(sink_.disputes[0].downstream->stage, stages_[1].facts);
  EXPECT_EQ(sink_.disputes[0].tokens, 3u);
  EXPECT_EQ(sink_.agreed, 0u);
}

TEST_F(ReceiptCheckerTest, TheCoordinatorKnowsWhatItSentAndGot) {
  const Step step = MakeStep({{kA, 0, 3}});
  Submit(step);
  stages_[0].Compute(step, "", "other");
  stages_[1].Compute(step, "other");
  Return(step);
  Pass(MakeStep({}, {{kA, 0}}));
  for (size_t i : {0, 1}) EXPECT_TRUE(Take(i, stages_[i].Sign()));
  ASSERT_EQ(sink_.disputes.size(), 2u);
  EXPECT_EQ(sink_.disputes[0].upstream, nullptr);
  EXPECT_EQ(sink_.disputes[0].downstream->stage, stages_[0].facts);
  EXPECT_EQ(sink_.disputes[1].upstream->stage, stages_[1].facts);
  EXPECT_EQ(sink_.disputes[1].downstream, nullptr);
}

TEST_F(ReceiptCheckerTest, OtherRangesThanEverybodysAreADispute) {
  Pass(MakeStep({{kA, 0, 64}}));
  Pass(MakeStep({{kA, 64, 1}}));
  Receipt receipt = stages_[0].Unsigned();
  receipt.chunks[0].tokens = 63;
  EXPECT_TRUE(Take(0, SignReceipt(receipt, stages_[0].key)));
  EXPECT_TRUE(Take(1, stages_[1].Sign()));
  ASSERT_EQ(sink_.disputes.size(), 1u);
  EXPECT_EQ(sink_.disputes[0].upstream->stage, stages_[0].facts);
  EXPECT_EQ(sink_.disputes[0].downstream, nullptr);
}

// Its stages differ in what they have computed, and nobody is to blame.
TEST_F(ReceiptCheckerTest, AStepThatFailedLeavesNoDispute) {
  Pass(MakeStep({{kA, 0, 60}}));
  const Step failed = MakeStep({{kA, 60, 10}});
  Submit(failed);
  stages_[0].Compute(failed);
  stages_[1].record.Pass(failed, {}, stages_[1].closed);
  checker_.Returned(kEpoch, 0, failed.id, false, {});
  Pass(MakeStep({}, {{kA, 0}}));
  for (size_t i : {0, 1}) EXPECT_TRUE(Take(i, stages_[i].Sign()));
  EXPECT_EQ(sink_.taken, 3u);
  EXPECT_EQ(sink_.agreed, 0u);
  EXPECT_TRUE(sink_.disputes.empty());
}

TEST_F(ReceiptCheckerTest, AnEpochThatBreaksOffLeavesNoDispute) {
  Pass(MakeStep({{kA, 0, 64}}));
  Pass(MakeStep({{kA, 64, 1}}));
  const Step lost = MakeStep({{kA, 63, 8}});
  Submit(lost);
  stages_[0].Compute(lost);
  checker_.End(kEpoch);
  for (Stage& stage : stages_) stage.record.CloseAll(stage.closed);
  for (size_t i : {0, 1}) EXPECT_TRUE(Take(i, stages_[i].Sign()));
  EXPECT_EQ(sink_.agreed, 2u);  // the chunk that was closed before
  EXPECT_GE(sink_.taken, 4u);
  EXPECT_TRUE(sink_.disputes.empty());
  EXPECT_TRUE(sink_.refused.empty());
}

}  // namespace
}  // namespace efedllm
