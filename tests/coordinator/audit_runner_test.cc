#include "coordinator/audit_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/audit_world.h"

namespace efedllm {
namespace {

using ::testing::Each;

class RunnerWorld {
 public:
  explicit RunnerWorld(AuditRunnerOptions options = {}, uint64_t rate_ppm = kWhole) {
    const AuditTrialParts parts = world.Parts();
    options.retry = absl::Milliseconds(20);
    runner = std::make_unique<AuditRunner>(
        options, AuditRunnerParts{.clock = clock_,
                                  .rows = world,
                                  .bases = parts.bases,
                                  .model = "tiny",
                                  .replay = parts.replay,
                                  .layers = parts.layers,
                                  .evidence_folder = world.dir() + "/kept",
                                  .owner = parts.owner,
                                  .rate_ppm = [rate_ppm](NodeId) { return rate_ppm; },
                                  .busy = [this] { return busy.load(); },
                                  .on_result =
                                      [this](const AuditResult& result) {
                                        absl::MutexLock lock(&mu_);
                                        results_.push_back(result.outcome);
                                      }});
  }

  // A sequence of some positions, claimed by the second node.
  std::vector<bool> Claim(uint64_t sequence, uint32_t positions) {
    world.Compute(SequenceId{sequence}, positions);
    std::vector<ClaimPtr> claims;
    std::shared_ptr<const SignedReceipt> receipt;
    for (const AuditJob& job : world.Claim(1, SequenceId{sequence})) {
      claims.push_back(job.claim);
      receipt = job.receipt;
    }
    return runner->OnReceipt(*receipt, claims);
  }
  std::vector<AuditOutcome> results() const {
    absl::MutexLock lock(&mu_);
    return results_;
  }

  AuditWorld world;
  std::atomic<bool> busy{false};

 private:
  const SystemClock clock_;
  mutable absl::Mutex mu_;
  std::vector<AuditOutcome> results_ ABSL_GUARDED_BY(mu_);

 public:
  std::unique_ptr<AuditRunner> runner;  // last: its thread uses all of the above
};

TEST(AuditRunner, EveryPickedChunkIsReportedOnce) {
  RunnerWorld world;
  EXPECT_THAT(world.Claim(1, 100), Each(true));
  world.world.node(1).cheat = [](const Step&, ConstMatrixRef, MatrixRef rows) {
    rows.row(0)[0] += 1;
  };
  world.Claim(2, 20);
  ASSERT_TRUE(world.runner->AwaitIdle(absl::Seconds(60)));
  EXPECT_THAT(world.results(),
              testing::UnorderedElementsAre(AuditOutcome::kHonest, AuditOutcome::kHonest,
                                            AuditOutcome::kLied));
  const AuditCounters counters = world.runner->counters();
  EXPECT_EQ(counters.claims, 3u);
  EXPECT_EQ(counters.picked, 3u);
  EXPECT_EQ(counters.honest, 2u);
  EXPECT_EQ(counters.lied, 1u);
  EXPECT_GT(counters.rows_replayed, 100u);
}

TEST(AuditRunner, PicksAtTheRateOfTheNode) {
  RunnerWorld none({}, 0);
  EXPECT_THAT(none.Claim(1, 100), Each(false));
  EXPECT_TRUE(none.runner->AwaitIdle(absl::ZeroDuration()));
  EXPECT_EQ(none.runner->counters().claims, 2u);

  RunnerWorld some({}, kWhole / 4);
  int picked = 0;
  for (uint64_t sequence = 1; sequence <= 200; ++sequence) {
    for (const bool one : some.Claim(sequence, 1)) picked += one ? 1 : 0;
    Step end;
    end.trims = {{SequenceId{sequence}, 0}};
    for (const size_t node : {0u, 1u}) {
      ASSERT_TRUE(some.world.node(node).executor->Run(end, {nullptr, 0, 32}).ok());
    }
  }
  EXPECT_GT(picked, 25);
  EXPECT_LT(picked, 80);
  ASSERT_TRUE(some.runner->AwaitIdle(absl::Seconds(60)));
  EXPECT_THAT(some.results(), Each(AuditOutcome::kHonest));
}

void NeverWhileBusy(AuditRunnerOptions& options) {
  options.busy_share = 0;
  options.burst = absl::ZeroDuration();
  options.prompt_audits = 0;
}

TEST(AuditRunner, DropsTheOldestWhereItIsBehind) {
  AuditRunnerOptions options;
  options.queue = 2;
  NeverWhileBusy(options);
  RunnerWorld world(options);
  world.busy = true;  // it waits before the first
  for (uint64_t sequence = 1; sequence <= 6; ++sequence) world.Claim(sequence, 3);
  EXPECT_EQ(world.runner->counters().dropped, 4u);
  world.busy = false;
  ASSERT_TRUE(world.runner->AwaitIdle(absl::Seconds(60)));
  const AuditCounters counters = world.runner->counters();
  EXPECT_EQ(counters.dropped + counters.honest, 6u);
}

TEST(AuditRunner, AsksAgainUntilTheNodeIsBackAndThenNoMore) {
  AuditRunnerOptions options;
  options.attempts = 1000;
  RunnerWorld world(options);
  world.world.node(1).away = true;
  world.Claim(1, 3);
  EXPECT_FALSE(world.runner->AwaitIdle(absl::Milliseconds(100)));
  world.world.node(1).away = false;
  EXPECT_TRUE(world.runner->AwaitIdle(absl::Seconds(60)));
  EXPECT_THAT(world.results(), testing::ElementsAre(AuditOutcome::kHonest));

  options.attempts = 2;
  RunnerWorld gone(options);
  gone.world.node(1).away = true;
  gone.Claim(1, 3);
  EXPECT_TRUE(gone.runner->AwaitIdle(absl::Seconds(60)));
  EXPECT_THAT(gone.results(), testing::ElementsAre(AuditOutcome::kWithheld));
}

TEST(AuditRunner, WhatIsJudgedTooLateIsNobodysFault) {
  AuditRunnerOptions options;
  options.window = absl::ZeroDuration();
  RunnerWorld world(options);
  world.world.node(1).withholds = true;
  world.Claim(1, 3);
  ASSERT_TRUE(world.runner->AwaitIdle(absl::Seconds(60)));
  EXPECT_THAT(world.results(), Each(AuditOutcome::kDropped));
}

TEST(AuditRunner, RowsThatItsNodeSignedForLongBeforeOthersAreNobodysFault) {
  AuditRunnerOptions options;
  options.window_rows = 150;
  NeverWhileBusy(options);
  RunnerWorld world(options);
  world.world.node(1).withholds = true;
  world.busy = true;  // until all are claimed
  for (uint64_t sequence = 1; sequence <= 5; ++sequence) world.Claim(sequence, 50);
  world.busy = false;
  ASSERT_TRUE(world.runner->AwaitIdle(absl::Seconds(60)));
  EXPECT_EQ(world.runner->counters().withheld, 3u);
  EXPECT_EQ(world.runner->counters().dropped, 2u);
}

TEST(AuditRunner, StopsInTheMiddleOfAnAudit) {
  AuditRunnerOptions options;
  NeverWhileBusy(options);
  RunnerWorld world(options);
  world.busy = true;
  world.Claim(1, 100);
  world.runner.reset();
  EXPECT_TRUE(world.results().empty());
}

TEST(AuditRunner, AnAppealAuditsAgainWhatWasWithheld) {
  RunnerWorld world;
  world.world.node(1).withholds = true;
  world.Claim(1, 100);
  ASSERT_TRUE(world.runner->AwaitIdle(absl::Seconds(60)));
  EXPECT_THAT(world.results(), Each(AuditOutcome::kWithheld));
  world.world.node(1).withholds = false;
  const NodeId node = world.world.node(1).stage->node;
  const size_t chunks = world.runner->Reaudit(node).chunks;
  EXPECT_EQ(chunks, 2u);
  ASSERT_TRUE(world.runner->AwaitIdle(absl::Seconds(60)));
  const AuditAppeal appeal = world.runner->Reaudit(node);
  EXPECT_EQ(appeal.waiting, 0u);
  EXPECT_EQ(appeal.unproven, 0u);
  EXPECT_EQ(world.runner->counters().honest, 2u);
}

}  // namespace
}  // namespace efedllm
