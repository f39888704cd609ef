#include "coordinator/audit_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr absl::Duration kNow = absl::ZeroDuration();

class AuditQueueTest : public ::testing::Test {
 protected:
  AuditJob Job(uint64_t sequence, uint32_t first, uint32_t tokens) const {
    TakenClaim claim{.stage = stage_};
    claim.claim.sequence = SequenceId{sequence};
    claim.claim.first_position = first;
    claim.claim.tokens = tokens;
    return {.claim = std::make_shared<const TakenClaim>(claim)};
  }
  // Sequence and first position of each.
  std::vector<std::pair<uint64_t, uint32_t>> Take(bool prompt_only = false) {
    std::vector<std::pair<uint64_t, uint32_t>> taken;
    for (const AuditJob& job : queue_.Take({.jobs = 4, .rows = 300}, kNow, prompt_only)) {
      taken.emplace_back(job.claim->claim.sequence.v, job.claim->claim.first_position);
    }
    return taken;
  }

  ManualClock clock_;
  AuditQueue queue_{clock_, 6};
  std::shared_ptr<ReceiptStage> stage_ = std::make_shared<ReceiptStage>();
};

TEST_F(AuditQueueTest, TheNewestComeFirstAsFarAsTheyFit) {
  for (const uint64_t sequence : {1, 2, 3}) queue_.Push(Job(sequence, 64, 64));
  EXPECT_THAT(Take(), ElementsAre(std::pair(3, 64), std::pair(2, 64)));
  EXPECT_THAT(Take(), ElementsAre(std::pair(1, 64)));
  EXPECT_THAT(Take(), IsEmpty());
  queue_.Push(Job(1, 512, 64));  // too long for any pass, and not for its own
  EXPECT_THAT(Take(), ElementsAre(std::pair(1, 512)));
}

TEST_F(AuditQueueTest, ChunksOfOneSequenceShareTheRowsBeforeThem) {
  for (const uint32_t first : {0, 64, 128}) queue_.Push(Job(1, first, 64));
  queue_.Push(Job(2, 0, 64));
  EXPECT_THAT(Take(),
              ElementsAre(std::pair(2, 0), std::pair(1, 128), std::pair(1, 64), std::pair(1, 0)));
}

TEST_F(AuditQueueTest, PromptOnesComeAlone) {
  queue_.Push(Job(1, 0, 64));
  EXPECT_THAT(Take(true), IsEmpty());
  for (const uint64_t sequence : {2, 3}) {
    AuditJob job = Job(sequence, 0, 64);
    job.prompt = true;
    queue_.Push(job);
  }
  EXPECT_THAT(Take(), ElementsAre(std::pair(3, 0)));
  EXPECT_THAT(Take(true), ElementsAre(std::pair(2, 0)));
  EXPECT_THAT(Take(true), IsEmpty());
  EXPECT_THAT(Take(), ElementsAre(std::pair(1, 0)));
}

TEST_F(AuditQueueTest, OtherStagesAndWhatIsNotDueWait) {
  queue_.Push(Job(1, 0, 64));
  stage_ = std::make_shared<ReceiptStage>();
  stage_->node = NodeId{7};
  queue_.Push(Job(2, 0, 64));
  AuditJob later = Job(3, 0, 64);
  later.not_before = clock_.Now() + absl::Seconds(2);
  queue_.Push(later);
  EXPECT_THAT(Take(), ElementsAre(std::pair(2, 0)));
  EXPECT_THAT(Take(), ElementsAre(std::pair(1, 0)));
  EXPECT_THAT(Take(), IsEmpty());
  clock_.Advance(absl::Seconds(2));
  EXPECT_THAT(Take(), ElementsAre(std::pair(3, 0)));
}

TEST_F(AuditQueueTest, NodesTakeTurns) {
  for (const uint64_t node : {1, 2}) {
    stage_ = std::make_shared<ReceiptStage>();
    stage_->node = NodeId{node};
    for (const uint64_t sequence : {10, 20}) queue_.Push(Job(sequence + node, 200, 64));
  }
  EXPECT_THAT(Take(), ElementsAre(std::pair(22, 200)));
  EXPECT_THAT(Take(), ElementsAre(std::pair(21, 200)));
  EXPECT_THAT(Take(), ElementsAre(std::pair(12, 200)));
  EXPECT_THAT(Take(), ElementsAre(std::pair(11, 200)));
}

TEST_F(AuditQueueTest, TheOldestMakesRoom) {
  for (uint64_t sequence = 1; sequence <= 6; ++sequence) {
    EXPECT_FALSE(queue_.Push(Job(sequence, 0, 64)).has_value());
  }
  const std::optional<AuditJob> dropped = queue_.Push(Job(7, 0, 64));
  ASSERT_TRUE(dropped.has_value());
  EXPECT_EQ(dropped->claim->claim.sequence, SequenceId{1});
  EXPECT_EQ(queue_.size(), 6u);
}

}  // namespace
}  // namespace efedllm
