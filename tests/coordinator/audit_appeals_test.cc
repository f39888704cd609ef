#include "coordinator/audit_appeals.h"

#include <gtest/gtest.h>

#include "coordinator/audit_world.h"

namespace efedllm {
namespace {

AuditResult Result(AuditJob job, AuditOutcome outcome) {
  AuditResult result;
  result.job = std::move(job);
  result.outcome = outcome;
  return result;
}

class Appeals : public testing::Test {
 protected:
  // Chunks of the second node.
  std::vector<AuditJob> Jobs(uint64_t sequence) {
    world_.Compute(SequenceId{sequence}, 20);
    return world_.Claim(1, SequenceId{sequence});
  }
  AuditWorld world_;
  const NodeId node_ = world_.node(1).stage->node;
};

TEST_F(Appeals, WhatWasWithheldIsAuditedAgainAndSaysHowItEnded) {
  AuditAppeals appeals;
  for (uint64_t sequence = 1; sequence < 4; ++sequence) {
    for (const AuditJob& job : Jobs(sequence)) {
      appeals.OnResult(
          Result(job, sequence == 3 ? AuditOutcome::kHonest : AuditOutcome::kWithheld));
    }
  }
  EXPECT_TRUE(appeals.Begin(world_.node(0).stage->node).empty());
  EXPECT_EQ(appeals.Take(world_.node(0).stage->node).chunks, 0u);
  const std::vector<AuditJob> again = appeals.Begin(node_);
  ASSERT_EQ(again.size(), 2u);
  EXPECT_TRUE(appeals.Begin(node_).empty());  // one at a time
  EXPECT_EQ(appeals.Take(node_).waiting, 2u);
  appeals.OnResult(Result(again[0], AuditOutcome::kHonest));
  appeals.OnResult(Result(Jobs(5)[0], AuditOutcome::kHonest));  // of no appeal
  EXPECT_EQ(appeals.Take(node_).waiting, 1u);
  appeals.OnResult(Result(again[1], AuditOutcome::kWithheld));
  const AuditAppeal ended = appeals.Take(node_);
  EXPECT_EQ(ended.chunks, 2u);
  EXPECT_EQ(ended.waiting, 0u);
  EXPECT_EQ(ended.unproven, 1u);
  // The next one is about what is still missing.
  EXPECT_EQ(appeals.Begin(node_).size(), 1u);
}

TEST_F(Appeals, OldChunksAreForgotten) {
  AuditAppeals appeals(/*most=*/2);
  for (uint64_t sequence = 1; sequence < 6; ++sequence) {
    appeals.OnResult(Result(Jobs(sequence)[0], AuditOutcome::kWithheld));
  }
  EXPECT_EQ(appeals.Begin(node_).size(), 2u);
}

}  // namespace
}  // namespace efedllm
