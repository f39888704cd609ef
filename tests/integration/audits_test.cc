// Real workers, honest and not, whose chunks are all audited.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "adversary/cheats.h"
#include "coordinator/audit_runner.h"
#include "coordinator/boundary_calibration.h"
#include "integration/cluster_world.h"
#include "model/tensor_loader.h"

namespace efedllm {
namespace {

// Audits everything, as the coordinator would a newcomer.
class Auditor final : public ReceiptSink {
 public:
  explicit Auditor(const std::string& evidence_folder)
      : folder_(evidence_folder), file_(*ModelFile::Open(kSeedlingPath)) {}

  void Start(Coordinator& coordinator) {
    const ModelConfig config = *ModelConfigFromFile(file_);
    runner_ = std::make_unique<AuditRunner>(
        AuditRunnerOptions{},
        AuditRunnerParts{
            .clock = clock_,
            .rows = coordinator.kept_rows(),
            .bases = [this](const ReceiptStage& stage) { return BasesOf(stage); },
            .model = "seedling",
            .replay = {.config = config, .weight_bytes = uint64_t{1} << 30},
            .layers = [this, config](
                          LayerRange layers) { return LoadStageTensors(config, file_, layers); },
            .evidence_folder = folder_,
            .rate_ppm = [](NodeId) { return kWhole; },
            .on_result =
                [this](const AuditResult& result) {
                  absl::MutexLock lock(&mu_);
                  ++results_[result.outcome];
                  if (result.outcome == AuditOutcome::kLied) {
                    liars_.insert(result.job.claim->stage->node);
                    details_.push_back(result.detail);
                  }
                }});
  }
  void Stop() { runner_.reset(); }

  // Before the coordinator starts.
  void Calibrate(const std::string& state_dir) {
    CalibrationOptions calibration;
    calibration.boundaries = {0, 2, 3, 4, 5, 6, 8};
    const auto bases = LoadOrCalibrate(file_, calibration, BasisStore(BasisFolder(state_dir)));
    ASSERT_TRUE(bases.ok()) << bases.status();
    for (const BasisPtr& basis : bases->bases) bases_[basis->boundary] = basis;
  }

  void OnFork(const SequenceFork& fork) override {
    if (runner_) runner_->OnFork(fork);
  }
  void OnReceipt(const SignedReceipt& receipt, const std::vector<ClaimPtr>& claims) override {
    if (runner_) runner_->OnReceipt(receipt, claims);
  }
  void OnAgreed(const ClaimPtr&) override {}
  void OnDispute(const EdgeDispute&) override {}
  void OnRefused(const RefusedReceipt& refused) override {
    absl::MutexLock lock(&mu_);
    refused_.insert(refused.why);
  }

  bool AwaitClaims(uint64_t claims) const {
    const absl::Time until = absl::Now() + absl::Seconds(60);
    while (runner_->counters().claims < claims && absl::Now() < until) {
      absl::SleepFor(absl::Milliseconds(20));
    }
    return runner_->AwaitIdle(absl::Seconds(60)) && runner_->counters().claims >= claims;
  }
  int Count(AuditOutcome outcome) const {
    absl::MutexLock lock(&mu_);
    const auto found = results_.find(outcome);
    return found == results_.end() ? 0 : found->second;
  }
  std::set<NodeId> liars() const {
    absl::MutexLock lock(&mu_);
    return liars_;
  }
  std::vector<std::string> details() const {
    absl::MutexLock lock(&mu_);
    return details_;
  }

 private:
  absl::StatusOr<EdgeBases> BasesOf(const ReceiptStage& stage) const {
    const Assignment& assignment = stage.assignment;
    EdgeBases bases;
    if (assignment.upstream_codec.needs_basis()) bases.input = bases_.at(assignment.layers.first);
    if (assignment.codec.needs_basis()) bases.output = bases_.at(assignment.layers.last);
    return bases;
  }

  std::map<uint32_t, BasisPtr> bases_;
  const SystemClock clock_;
  const std::string folder_;
  const ModelFile file_;
  std::unique_ptr<AuditRunner> runner_;
  mutable absl::Mutex mu_;
  std::map<AuditOutcome, int> results_ ABSL_GUARDED_BY(mu_);
  std::set<NodeId> liars_ ABSL_GUARDED_BY(mu_);
  std::set<ReceiptRefusal> refused_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> details_ ABSL_GUARDED_BY(mu_);
};

struct AuditedCluster {
  explicit AuditedCluster(const std::string& cheat, const std::string& codec = "lossless")
      : auditor(testing::TempDir() + "/evidence-" + cheat),
        world(kSeedlingPath, 3, [this, codec](auto& o) {
          o.layout = Layout::kChain;
          o.receipt_sink = &auditor;
          o.codec = CodecRequest::FromName(codec).value();
          if (o.codec.may_use_bases()) auditor.Calibrate(o.state_dir);
        }) {
    auditor.Start(world.coordinator());
    for (int i = 0; i < 3; ++i) {
      world.Join([&](WorkerOptions& options) {
        if (i == 1 && !cheat.empty()) options.tamper = *MakeCheat(cheat);
      });
    }
  }
  ~AuditedCluster() { auditor.Stop(); }

  bool Ask(uint32_t tokens) {
    const auto prompt = SeedlingTokens("Once upon a time there was a fox named Milo.");
    return world.Generate(prompt, tokens).status.ok();
  }

  Auditor auditor;
  ClusterWorld world;
};

class HonestWorkers : public testing::TestWithParam<const char*> {};

TEST_P(HonestWorkers, AreFoundHonest) {
  AuditedCluster cluster("", GetParam());
  ASSERT_TRUE(cluster.world.AwaitServing(3));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(cluster.Ask(100));
  ASSERT_TRUE(cluster.auditor.AwaitClaims(6));
  EXPECT_GE(cluster.auditor.Count(AuditOutcome::kHonest), 6);
  for (const AuditOutcome outcome : {AuditOutcome::kLied, AuditOutcome::kWithheld,
                                     AuditOutcome::kUndecidable, AuditOutcome::kDropped}) {
    EXPECT_EQ(cluster.auditor.Count(outcome), 0) << std::string(AuditOutcomeName(outcome));
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, HonestWorkers,
                         testing::Values("lossless", "f16", "int8", "small"));

class Adversaries : public testing::TestWithParam<const char*> {};

TEST_P(Adversaries, AreProvenAndNobodyElseIs) {
  AuditedCluster cluster(GetParam());
  ASSERT_TRUE(cluster.world.AwaitServing(3));
  ASSERT_TRUE(cluster.Ask(70));
  ASSERT_TRUE(cluster.auditor.AwaitClaims(3));
  EXPECT_EQ(cluster.auditor.liars().size(), 1u);
  EXPECT_GE(cluster.auditor.Count(AuditOutcome::kHonest), 2);
  for (const std::string& detail : cluster.auditor.details()) {
    std::printf("%s: %s\n", GetParam(), detail.c_str());
  }
}

INSTANTIATE_TEST_SUITE_P(Cheats, Adversaries,
                         testing::Values("noise-bit", "noise-0.1", "noise-10", "q4-weights",
                                         "skipped-layer", "skipped-all", "stale", "zeros",
                                         "sign-flip", "wrong-hash"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) {
                             if (!isalnum(static_cast<unsigned char>(c))) c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace efedllm
