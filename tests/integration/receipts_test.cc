// Receipts of real workers: all verify, all agree, and the rows behind them are there.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <set>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "coordinator/boundary_calibration.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

const std::string kPrompt =
    "Once upon a time there was a fox named Milo. He lived in the woods with his mother and his "
    "two brothers, and every morning he went down to the river to look at the fish.";

class Recorder final : public ReceiptSink {
 public:
  void OnReceipt(const SignedReceipt& receipt,
                 const std::vector<std::shared_ptr<const TakenClaim>>& taken) override {
    absl::MutexLock lock(&mu_);
    EXPECT_EQ(taken.size(), receipt.receipt.chunks.size());
    for (const auto& claim : taken) claims_.push_back(claim);
  }
  void OnAgreed(const std::shared_ptr<const TakenClaim>& claim) override {
    absl::MutexLock lock(&mu_);
    agreed_.insert(claim.get());
  }
  void OnDispute(const EdgeDispute& dispute) override {
    ADD_FAILURE() << "epoch " << dispute.epoch.v << " sequence " << dispute.sequence.v << " at "
                  << dispute.first_position << " + " << dispute.tokens;
  }
  void OnRefused(const RefusedReceipt& refused) override {
    const Receipt& receipt = refused.receipt.receipt;
    ADD_FAILURE() << NodeName(receipt.node) << " epoch " << receipt.epoch.v << ": "
                  << refused.detail;
  }

  using Claims = std::vector<std::shared_ptr<const TakenClaim>>;
  Claims claims() const {
    absl::MutexLock lock(&mu_);
    return claims_;
  }
  size_t agreed() const {
    absl::MutexLock lock(&mu_);
    return agreed_.size();
  }
  // Tokens of a stage, of requests.
  uint64_t Tokens(uint32_t stage) const {
    absl::MutexLock lock(&mu_);
    uint64_t tokens = 0;
    for (const auto& claim : claims_) {
      if (claim->stage->assignment.stage == stage && claim->claim.sequence.v != UINT64_MAX) {
        tokens += claim->claim.tokens;
      }
    }
    return tokens;
  }

 private:
  mutable absl::Mutex mu_;
  Claims claims_ ABSL_GUARDED_BY(mu_);
  std::set<const TakenClaim*> agreed_ ABSL_GUARDED_BY(mu_);
};

// Of the boundaries between three workers; calibrated once, as that takes a while.
const std::string& CalibratedBases() {
  static const std::string& folder = *new std::string([] {
    const std::string made = testing::TempDir() + "/receipts_test_bases";
    const absl::StatusOr<ModelFile> file = ModelFile::Open(kSeedlingPath);
    EXPECT_TRUE(file.ok()) << file.status();
    CalibrationOptions calibration;
    calibration.boundaries = {0, 2, 3, 5, 6, 8};
    const auto bases = LoadOrCalibrate(*file, calibration, BasisStore(made));
    EXPECT_TRUE(bases.ok()) << bases.status();
    return made;
  }());
  return folder;
}

ClusterWorld::CoordinatorTweak With(Recorder& recorder, const char* codec = "lossless") {
  return [&recorder, codec](CoordinatorOptions& options) {
    options.layout = Layout::kChain;
    options.receipt_sink = &recorder;
    options.codec = CodecRequest::FromName(codec).value();
    if (!options.codec.may_use_bases()) return;
    std::filesystem::create_directories(options.state_dir);
    std::filesystem::copy(CalibratedBases(), BasisFolder(options.state_dir));
  };
}

// Until there are as many claims as asked for, or for some seconds.
bool Await(const std::function<bool()>& condition) {
  const absl::Time until = absl::Now() + absl::Seconds(20);
  while (!condition() && absl::Now() < until) absl::SleepFor(absl::Milliseconds(20));
  return condition();
}

void ExpectRowsBehind(Coordinator& coordinator, const Recorder::Claims& claims) {
  size_t checked = 0;
  for (const auto& claim : claims) {
    const ReceiptStage& stage = *claim->stage;
    for (const bool outputs : {false, true}) {
      const ChunkSide& side = outputs ? claim->claim.outputs : claim->claim.inputs;
      KeptRowsRequest request{.epoch = stage.assignment.epoch,
                              .sequence = claim->claim.sequence,
                              .first_position = claim->claim.first_position,
                              .tokens = claim->claim.tokens,
                              .outputs = outputs};
      bool found = false;
      for (; !found && request.version < 8; ++request.version) {
        const auto rows = coordinator.kept_rows().Fetch(stage.node, stage.address, request,
                                                        stage.assignment.config.d_model);
        if (!rows.ok()) break;
        found = DigestOfRows(*rows) == side.digest;
      }
      EXPECT_TRUE(found) << NodeName(stage.node) << " epoch " << stage.assignment.epoch.v
                         << " sequence " << claim->claim.sequence.v << " at "
                         << claim->claim.first_position << " outputs " << outputs;
      checked += found ? 1 : 0;
    }
  }
  EXPECT_EQ(checked, 2 * claims.size());
}

class ReceiptCodecs : public testing::TestWithParam<const char*> {};

TEST_P(ReceiptCodecs, EveryTokenIsClaimedByEveryStageAndAllAgree) {
  Recorder recorder;
  ClusterWorld world(kSeedlingPath, 3, With(recorder, GetParam()));
  for (int i = 0; i < 3; ++i) world.Join();
  ASSERT_TRUE(world.AwaitServing(3));
  const size_t prompt = SeedlingTokens(kPrompt).size();
  std::vector<std::shared_ptr<Generation>> running;
  for (uint32_t i = 0; i < 4; ++i) {
    running.push_back(world.Submit(SeedlingTokens(kPrompt + std::string(i, '!')), 90 + 10 * i));
  }
  running[3]->Cancel();
  for (int i = 0; i < 3; ++i)
    ASSERT_TRUE(world.Collect(*running[static_cast<size_t>(i)]).status.ok());
  // What the prefix cache keeps is open still; the end of the epoch closes it.
  world.Leave(0);
  ASSERT_TRUE(world.AwaitServing(2));
  EXPECT_TRUE(Await([&] {
    return recorder.Tokens(0) >= prompt + 270 && recorder.Tokens(1) >= prompt + 270;
  })) << recorder.Tokens(0)
      << " " << recorder.Tokens(1);
  EXPECT_TRUE(Await([&] { return recorder.agreed() > 6; }));
}

INSTANTIATE_TEST_SUITE_P(Codecs, ReceiptCodecs,
                         testing::Values("lossless", "f16", "int8", "balanced"),
                         [](const auto& info) { return std::string(info.param); });

TEST(Receipts, TheRowsBehindThemAreThere) {
  Recorder recorder;
  ClusterWorld world(kSeedlingPath, 2, With(recorder, "int8"));
  for (int i = 0; i < 2; ++i) {
    world.Join([](WorkerOptions& options) { options.kept_rows_memory_bytes = 0; });
  }
  ASSERT_TRUE(world.AwaitServing(2));
  ASSERT_TRUE(world.Generate(SeedlingTokens(kPrompt), 300).status.ok());
  ASSERT_TRUE(Await([&] { return recorder.claims().size() >= 10; }));
  ExpectRowsBehind(world.coordinator(), recorder.claims());
}

TEST(Receipts, NobodyGivesAnyWhereNobodyWantsThem) {
  Recorder recorder;
  ClusterWorld world(kSeedlingPath, 2, [&](CoordinatorOptions& options) {
    options.receipts = false;
    options.receipt_sink = &recorder;
  });
  for (int i = 0; i < 2; ++i) world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  ASSERT_TRUE(world.Generate(SeedlingTokens(kPrompt), 150).status.ok());
  absl::SleepFor(absl::Milliseconds(1500));
  EXPECT_TRUE(recorder.claims().empty());
  EXPECT_EQ(world.coordinator().receipts().counters().taken, 0u);
}

TEST(Receipts, AFailoverLeavesNothingThatDisagrees) {
  Recorder recorder;
  ClusterWorld world(kSeedlingPath, 0, With(recorder, "f16"));
  std::vector<pid_t> workers;
  for (size_t i = 0; i < 3; ++i) {
    workers.push_back(world.Spawn());
    ASSERT_TRUE(world.AwaitServing(i + 1));
  }
  for (const pid_t worker : {workers[1], workers[2]}) {
    const size_t before = recorder.agreed();
    ASSERT_TRUE(world.Generate(SeedlingTokens(kPrompt), 200).status.ok());
    EXPECT_TRUE(Await([&] { return recorder.agreed() > before; }));
    const auto generation = world.Submit(SeedlingTokens(kPrompt), 300);
    ASSERT_NE(generation, nullptr);
    absl::SleepFor(absl::Milliseconds(300));
    world.Kill(worker, SIGKILL);
    EXPECT_TRUE(world.Collect(*generation).status.ok());
  }
  EXPECT_TRUE(Await([&] {
    std::set<Epoch> epochs;
    for (const auto& claim : recorder.claims()) epochs.insert(claim->stage->assignment.epoch);
    return epochs.size() >= 3;
  }));
}

}  // namespace
}  // namespace efedllm
