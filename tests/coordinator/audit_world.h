// Two nodes with a stage each of a tiny model: what they compute, keep, show and claim. One of them
// may cheat.
#ifndef EFEDLLM_TESTS_COORDINATOR_AUDIT_WORLD_H_
#define EFEDLLM_TESTS_COORDINATOR_AUDIT_WORLD_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "coordinator/audit_claims.h"
#include "coordinator/audit_evidence.h"
#include "coordinator/audit_replay.h"
#include "coordinator/audit_trial.h"
#include "coordinator/kept_rows_source.h"
#include "coordinator/stage_replayer.h"
#include "model/gguf_builder.h"
#include "model/stage_executor.h"
#include "model/temp_dir.h"
#include "wire/replay_wire.h"

namespace efedllm {

class AuditWorld : public KeptRowsSource, public StageReplayer {
 public:
  // What a node does to the outputs of a step before it sends and keeps them.
  using Cheat = std::function<void(const Step& step, ConstMatrixRef inputs, MatrixRef outputs)>;
  struct Kept {
    std::vector<CodedRow> inputs, outputs;
    uint32_t claimed = 0;  // positions
  };
  struct Node {
    std::shared_ptr<ReceiptStage> stage;
    std::unique_ptr<StageExecutor> executor;
    std::map<SequenceId, Kept> kept;
    uint64_t receipts = 0;
    Cheat cheat;
    std::atomic<bool> withholds{false}, away{false};
  };

  explicit AuditWorld(CodecSetting codec = {CodecId::kF16})
      : bytes_(TinyLlama{.layers = 4}.Build()),
        file_(*ModelFile::Parse(BytesOf(bytes_))),
        config_(*ModelConfigFromFile(file_)),
        codec_(codec),
        compute_(*Compute::Create(0, "auto")),
        evidence_(dir_.path() + "/evidence") {
    AddNode(NodeId{11}, {0, 2});
    AddNode(NodeId{22}, {2, 4});
  }

  Node& node(size_t i) { return nodes_[i]; }
  AuditClaims& claims() { return claims_; }
  const EvidenceStore& evidence() const { return evidence_; }
  const ModelConfig& config() const { return config_; }
  std::string dir() const { return dir_.path(); }

  // Computes up to `tokens` positions more of a sequence, in steps of 1 to 40.
  void Compute(SequenceId sequence, uint32_t tokens) {
    absl::MutexLock lock(&mu_);
    const uint32_t end = Length(sequence) + tokens;
    while (Length(sequence) < end) {
      const auto some = 1 + static_cast<uint32_t>(random_.Below(40));
      Step step;
      step.spans = {{sequence, Length(sequence), std::min(some, end - Length(sequence))}};
      Run(step);
    }
  }
  void Fork(SequenceId child, SequenceId parent, uint32_t tokens) {
    absl::MutexLock lock(&mu_);
    Step step;
    step.forks = {{child, parent, tokens}};
    step.spans = {{child, tokens, 1}};
    for (Node& node : nodes_) {
      Kept& kept = node.kept[child];
      kept = node.kept[parent];
      kept.inputs.resize(tokens);
      kept.outputs.resize(tokens);
      kept.claimed = tokens;
    }
    claims_.AddFork(step.forks[0]);
    Run(step);
  }

  // What a node has computed and not claimed yet, as jobs; cut at multiples of 64.
  std::vector<AuditJob> Claim(size_t i, SequenceId sequence) {
    absl::MutexLock lock(&mu_);
    Node& node = nodes_[i];
    Kept& kept = node.kept[sequence];
    Receipt receipt;
    receipt.node = node.stage->node;
    receipt.epoch = node.stage->assignment.epoch;
    receipt.layers = node.stage->assignment.layers;
    receipt.number = node.receipts++;
    while (kept.claimed < kept.inputs.size()) {
      ChunkClaim claim;
      claim.sequence = sequence;
      claim.first_position = kept.claimed;
      const uint32_t limit = (kept.claimed / kChunkTokens + 1) * kChunkTokens;
      claim.tokens = std::min(limit, static_cast<uint32_t>(kept.inputs.size())) - kept.claimed;
      claim.inputs = SideOf(kept.inputs, claim);
      claim.outputs = SideOf(kept.outputs, claim);
      kept.claimed = claim.end();
      receipt.chunks.push_back(claim);
    }
    const auto signed_receipt = std::make_shared<SignedReceipt>(SignedReceipt{receipt, {}});
    std::vector<AuditJob> jobs;
    for (uint32_t chunk = 0; chunk < receipt.chunks.size(); ++chunk) {
      const auto claim = std::make_shared<const TakenClaim>(
          TakenClaim{node.stage, receipt.number, chunk, receipt.chunks[chunk]});
      claims_.Add(claim);
      jobs.push_back({claim, signed_receipt, kWhole});
    }
    return jobs;
  }

  AuditTrialParts Parts() {
    return {
        .clock = clock_,
        .claims = claims_,
        .rows = *this,
        .bases = [](const ReceiptStage&) { return EdgeBases(); },
        .model = "tiny",
        .replay = {.config = config_, .weight_bytes = 1 << 20, .step_rows = 48},
        .layers = [this](LayerRange layers) { return LoadStageTensors(config_, file_, layers); },
        .evidence = evidence_,
        .owner = [](NodeId node) { return node == NodeId{11} ? "ann" : "bob"; },
        .draw = [this](LotteryPurpose, const TakenClaim&) { return random_.Next(); },
        .before_step = [] { return absl::OkStatus(); }};
  }
  std::vector<AuditResult> Judge(std::vector<AuditJob> jobs, bool allow_unclaimed = false) {
    AuditTrial trial(Parts(), compute_);
    return trial.Judge(std::move(jobs), allow_unclaimed);
  }

  absl::StatusOr<std::vector<CodedRow>> Fetch(NodeId id, const std::string& address,
                                              const KeptRowsRequest& request,
                                              size_t d_model) override {
    Node& node = *std::find_if(nodes_.begin(), nodes_.end(),
                               [&](const Node& n) { return n.stage->node == id; });
    EXPECT_EQ(address, node.stage->address);
    EXPECT_EQ(d_model, config_.d_model);
    if (node.away) return absl::UnavailableError("it is away");
    absl::MutexLock lock(&mu_);
    const std::vector<CodedRow>& rows =
        request.outputs ? node.kept[request.sequence].outputs : node.kept[request.sequence].inputs;
    if (node.withholds || request.version > 0 ||
        request.first_position + request.tokens > rows.size()) {
      return absl::NotFoundError("it has not got them");
    }
    ++fetches_;
    return std::vector<CodedRow>(rows.begin() + request.first_position,
                                 rows.begin() + request.first_position + request.tokens);
  }

  // Any node computes any layers, honestly but for `answers` (of all positions).
  absl::StatusOr<StageReplayAnswer> Ask(NodeId node, const std::string&,
                                        const StageReplayQuestion& question) override {
    asked_.push_back(node);
    if (silent) return absl::UnavailableError("it says nothing");
    StageReplay replay({.config = config_}, Parts().layers, compute_);
    Matrix rows(question.inputs.rows, question.inputs.cols);
    std::copy(question.inputs.span().begin(), question.inputs.span().end(), rows.row(0));
    StageReplayAnswer answer;
    ReplayHooks hooks;
    hooks.after_layer = [&](uint32_t layers, ConstMatrixRef at) {
      Matrix said(at.rows, at.cols);
      std::copy_n(at.data, at.span().size(), said.row(0));
      if (answers) answers(node, layers, said.ref());
      answer.after_layer.push_back(DigestOfValues(said.ref()));
      answer.rows = Matrix(at.rows - question.first_wanted, at.cols);
      std::copy_n(said.row(question.first_wanted), answer.rows.ref().span().size(),
                  answer.rows.row(0));
    };
    RETURN_IF_ERROR(replay.Run({question.stage.layers.first, question.through},
                               question.stage.kv_type, {static_cast<uint32_t>(rows.rows())},
                               rows.ref(), hooks));
    return answer;
  }
  std::function<void(NodeId node, uint32_t layers, MatrixRef rows)> answers;
  bool silent = false;

  ManualClock& clock() { return clock_; }
  int fetches() const { return fetches_; }
  const std::vector<NodeId>& asked() const { return asked_; }

 private:
  void AddNode(NodeId id, LayerRange layers) {
    Node& node = nodes_.emplace_back();
    node.stage = std::make_shared<ReceiptStage>();
    node.stage->node = id;
    node.stage->address = absl::StrCat("127.0.0.1:", id.v);
    Assignment& assignment = node.stage->assignment;
    assignment.epoch = Epoch{3};
    assignment.layers = layers;
    assignment.config = config_;
    assignment.codec = codec_;
    assignment.stage = static_cast<uint32_t>(nodes_.size() - 1);
    StageOptions options;
    options.config = config_;
    options.layers = layers;
    options.kv_tokens = 1024;
    options.limits.max_position = config_.context;
    node.executor =
        *StageExecutor::Create(options, *LoadStageTensors(config_, file_, layers), compute_);
  }

  uint32_t Length(SequenceId sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return static_cast<uint32_t>(nodes_[0].kept[sequence].inputs.size());
  }

  void Run(const Step& step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Matrix hidden(step.tokens(), config_.d_model);
    for (float& value : hidden.ref().span()) value = static_cast<float>(random_.Uniform() * 2 - 1);
    for (Node& node : nodes_) {
      std::vector<CodedRow> coded = EncodeRows(hidden.ref(), codec_, nullptr);
      Append(node.kept[step.spans[0].sequence].inputs, coded);
      EXPECT_TRUE(DecodeRows(coded, nullptr, hidden.ref()).ok());
      const Matrix inputs = hidden;
      const absl::Status ran = node.executor->Run(step, hidden.ref());
      EXPECT_TRUE(ran.ok()) << ran;
      if (node.cheat) node.cheat(step, inputs.ref(), hidden.ref());
      coded = EncodeRows(hidden.ref(), codec_, nullptr);
      Append(node.kept[step.spans[0].sequence].outputs, coded);
    }
  }

  static void Append(std::vector<CodedRow>& to, const std::vector<CodedRow>& rows) {
    to.insert(to.end(), rows.begin(), rows.end());
  }

  static ChunkSide SideOf(const std::vector<CodedRow>& rows, const ChunkClaim& claim) {
    ChunkSide side;
    side.digest =
        DigestOfRows(absl::MakeConstSpan(rows).subspan(claim.first_position, claim.tokens));
    side.codec = rows[claim.first_position].codec;
    return side;
  }

  const TempDir dir_;
  const std::string bytes_;
  const ModelFile file_;
  const ModelConfig config_;
  const CodecSetting codec_;
  ManualClock clock_;
  efedllm::Compute compute_;
  EvidenceStore evidence_;
  AuditClaims claims_{10000};
  absl::Mutex mu_;  // of what nodes kept: runners fetch it in a thread of theirs
  std::deque<Node> nodes_;
  Random random_{5};
  int fetches_ = 0;
  std::vector<NodeId> asked_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_COORDINATOR_AUDIT_WORLD_H_
