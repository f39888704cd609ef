// Real workers of different owners that check each other's work; some lie about it.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/file.h"
#include "coordinator/audit_runner.h"
#include "coordinator/audit_sources.h"
#include "coordinator/network_stage_replayer.h"
#include "integration/cluster_world.h"
#include "model/tensor_loader.h"

namespace efedllm {
namespace {

using Verdict = AuditVerdict::Verifier;

struct Checks {
  uint64_t recheck_ppm = 0, planted_ppm = 0;
};

// Audits everything, and trusts everybody with verifying.
class Auditor final : public ReceiptSink {
 public:
  Auditor() : file_(*ModelFile::Open(kSeedlingPath)) {}

  void Start(Coordinator& coordinator, const std::string& dir, const Checks& checks) {
    const ModelConfig config = *ModelConfigFromFile(file_);
    const auto owner = [&coordinator](NodeId node) {
      for (const Member& member : coordinator.cluster_status().members) {
        if (member.node == node) return member.hello.owner;
      }
      return std::string();
    };
    AuditRunnerParts parts{
        .clock = clock_,
        .rows = coordinator.kept_rows(),
        .bases = [](const ReceiptStage&) { return EdgeBases(); },
        .model = "seedling",
        .replay = {.config = config, .weight_bytes = uint64_t{1} << 30},
        .layers = [this,
                   config](LayerRange layers) { return LoadStageTensors(config, file_, layers); },
        .evidence_folder = dir,
        .verifiers =
            [&coordinator, owner](const ReceiptStage& stage) {
              return VerifiersOf(stage, coordinator.cluster_status(), owner,
                                 [](NodeId) { return TrustState::kTrusted; });
            },
        .owner = owner,
        .replayer = &replayer_,
        .recheck_ppm = checks.recheck_ppm,
        .planted_ppm = checks.planted_ppm,
        .rate_ppm = [](NodeId) { return kWhole; },
        .on_result = [this](const AuditResult& result) { Note(result); }};
    AuditRunnerOptions options;
    options.prompt_audits = 0;  // which nobody else computes
    runner_ = std::make_unique<AuditRunner>(options, std::move(parts));
  }
  void Stop() { runner_.reset(); }

  void OnFork(const SequenceFork& fork) override {
    if (runner_) runner_->OnFork(fork);
  }
  void OnReceipt(const SignedReceipt& receipt, const std::vector<ClaimPtr>& claims) override {
    if (runner_) runner_->OnReceipt(receipt, claims);
  }
  void OnAgreed(const ClaimPtr&) override {}
  void OnDispute(const EdgeDispute&) override {}
  void OnRefused(const RefusedReceipt&) override {}

  bool AwaitClaims(uint64_t claims) const {
    // Verifiers compute at the lowest priority.
    const absl::Time until = absl::Now() + absl::Minutes(1);
    while (runner_->counters().claims < claims && absl::Now() < until) {
      absl::SleepFor(absl::Milliseconds(20));
    }
    EXPECT_GE(runner_->counters().claims, claims);
    return runner_->AwaitIdle(absl::Minutes(4)) && runner_->counters().claims >= claims;
  }
  AuditCounters counters() const { return runner_->counters(); }
  std::set<NodeId> liars() const {
    absl::MutexLock lock(&mu_);
    return liars_;
  }
  int Count(NodeId verifier, Verdict verdict) const {
    absl::MutexLock lock(&mu_);
    const auto found = verdicts_.find({verifier, verdict});
    return found == verdicts_.end() ? 0 : found->second;
  }
  std::vector<std::string> Evidence() const { return *runner_->evidence().List(); }

 private:
  void Note(const AuditResult& result) {
    absl::MutexLock lock(&mu_);
    if (result.outcome == AuditOutcome::kLied) liars_.insert(result.job.claim->stage->node);
    for (const auto& [node, verdict] : result.verifiers) ++verdicts_[{node, verdict}];
  }

  const SystemClock clock_;
  const ModelFile file_;
  const Transport transport_ = Transport::Insecure(kCoordinatorNode);
  NetworkStageReplayer replayer_{transport_, {.patience = absl::Minutes(2)}};
  std::unique_ptr<AuditRunner> runner_;
  mutable absl::Mutex mu_;
  std::set<NodeId> liars_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<NodeId, Verdict>, int> verdicts_ ABSL_GUARDED_BY(mu_);
};

// Three workers, each with the whole model: chains of one.
class VerifiersTest : public testing::Test {
 protected:
  void Serve(const Checks& checks, const std::vector<StageTamper>& tampers) {
    world_ = std::make_unique<ClusterWorld>(kSeedlingPath, 3, [this](CoordinatorOptions& options) {
      options.layout = Layout::kReplicas;
      options.insecure = true;
      options.receipt_sink = &auditor_;
    });
    auditor_.Start(world_->coordinator(), world_->dir() + "/evidence", checks);
    for (const StageTamper& tamper : tampers) {
      const Worker& worker = world_->Join([&](WorkerOptions& options) {
        options.insecure = true;
        options.owner = "owner-" + std::to_string(nodes_.size());
        options.tamper = tamper;
      });
      nodes_.push_back(worker.node());
    }
    ASSERT_TRUE(world_->AwaitServing(3));
    const auto prompt = SeedlingTokens("Once upon a time there was a fox named Milo.");
    std::vector<std::shared_ptr<Generation>> generations;
    for (int i = 0; i < 6; ++i) generations.push_back(world_->Submit(prompt, 70));
    for (const auto& generation : generations) {
      ASSERT_TRUE(world_->Collect(*generation).status.ok());
    }
    ASSERT_TRUE(auditor_.AwaitClaims(6));
  }
  void TearDown() override {
    auditor_.Stop();
    world_.reset();
  }
  int Verdicts(Verdict verdict) const {
    int sum = 0;
    for (const NodeId node : nodes_) sum += auditor_.Count(node, verdict);
    return sum;
  }
  static void Flip(MatrixRef rows) {
    for (size_t i = 0; i < rows.rows; ++i) rows.row(i)[0] = -rows.row(i)[0];
  }

  Auditor auditor_;
  std::unique_ptr<ClusterWorld> world_;
  std::vector<NodeId> nodes_;
};

TEST_F(VerifiersTest, HonestOnesSpareTheCoordinatorTheWork) {
  Serve({}, {{}, {}, {}});
  EXPECT_TRUE(auditor_.liars().empty());
  EXPECT_GE(Verdicts(Verdict::kUnchecked), 6);
  EXPECT_EQ(Verdicts(Verdict::kLied), 0);
  // But for what was claimed before there was anybody to ask.
  EXPECT_LT(auditor_.counters().rows_replayed, 64u);
}

TEST_F(VerifiersTest, HonestOnesAnswerAllThatIsCheckedRightly) {
  Serve({.recheck_ppm = kWhole, .planted_ppm = kWhole / 2}, {{}, {}, {}});
  EXPECT_TRUE(auditor_.liars().empty());
  EXPECT_GE(Verdicts(Verdict::kRight), 6);
  EXPECT_EQ(Verdicts(Verdict::kLied) + Verdicts(Verdict::kUnchecked), 0);
}

TEST_F(VerifiersTest, OneThatAlwaysSaysFineOfANeighbourIsFoundWithIt) {
  StageTamper cheat, colluder;
  cheat.outputs = [](const Step&, ConstMatrixRef, MatrixRef outputs) { Flip(outputs); };
  colluder.replayed = [](LayerRange, ConstMatrixRef, MatrixRef outputs) { Flip(outputs); };
  Serve({.recheck_ppm = kWhole}, {{}, cheat, colluder});
  EXPECT_EQ(auditor_.liars(), std::set<NodeId>{nodes_[1]});
  EXPECT_EQ(auditor_.Count(nodes_[0], Verdict::kLied), 0);
  EXPECT_EQ(auditor_.Count(nodes_[1], Verdict::kLied), 0);  // it computes for others honestly
  EXPECT_GT(auditor_.Count(nodes_[2], Verdict::kLied), 0);
}

TEST_F(VerifiersTest, OneThatAlwaysAccusesIsFoundAndHarmsNobody) {
  StageTamper accuser;
  accuser.replayed = [](LayerRange, ConstMatrixRef, MatrixRef outputs) {
    for (float& value : outputs.span()) value *= 1.01f;
  };
  Serve({}, {{}, accuser, {}});
  EXPECT_TRUE(auditor_.liars().empty());
  EXPECT_EQ(auditor_.Count(nodes_[0], Verdict::kLied), 0);
  EXPECT_GT(auditor_.Count(nodes_[1], Verdict::kLied), 0);
  EXPECT_EQ(auditor_.Count(nodes_[2], Verdict::kLied), 0);
  bool kept = false;
  for (const std::string& id : auditor_.Evidence()) {
    kept |= absl::StrContains(id, "-v" + NodeName(nodes_[1]));
  }
  EXPECT_TRUE(kept);
}

TEST_F(VerifiersTest, PlantedQuestionsAloneFindWhoAgreesWithALiar) {
  StageTamper colluder;
  colluder.replayed = [](LayerRange, ConstMatrixRef, MatrixRef outputs) { Flip(outputs); };
  Serve({.planted_ppm = kWhole}, {{}, {}, colluder});
  EXPECT_TRUE(auditor_.liars().empty());
  EXPECT_EQ(Verdicts(Verdict::kUnchecked), 0);
  EXPECT_EQ(Verdicts(Verdict::kLied), auditor_.Count(nodes_[2], Verdict::kLied));
  EXPECT_GT(auditor_.Count(nodes_[2], Verdict::kLied), 0);
}

// A node that computes wrongly whenever it is asked shows where.
TEST_F(VerifiersTest, ASuspectThatCheatsAgainIsNarrowedToALayer) {
  StageTamper cheat;
  cheat.outputs = [](const Step&, ConstMatrixRef, MatrixRef outputs) { Flip(outputs); };
  cheat.replayed = [](LayerRange, ConstMatrixRef, MatrixRef outputs) { Flip(outputs); };
  Serve({.recheck_ppm = kWhole}, {{}, cheat, {}});
  ASSERT_EQ(auditor_.liars(), std::set<NodeId>{nodes_[1]});
  bool narrowed = false;
  for (const std::string& id : auditor_.Evidence()) {
    const auto text = ReadFile(world_->dir() + "/evidence/" + id + ".json", 1 << 22);
    ASSERT_TRUE(text.ok()) << text.status();
    const auto json = nlohmann::json::parse(*text);
    if (!json.contains("suspect")) continue;
    narrowed = true;
    EXPECT_EQ(json["suspect"]["first_layer"], 7) << json["suspect"];
    EXPECT_EQ(json["suspect"]["difference"]["dimension"], 0);
  }
  EXPECT_TRUE(narrowed);
}

}  // namespace
}  // namespace efedllm
