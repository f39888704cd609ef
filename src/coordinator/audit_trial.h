// Judges finished chunks: brings their inputs together, has them computed again, and keeps evidence
// of what was proven. The rules are incentive/audit_policy.h's; here is what they ask for.
#ifndef EFEDLLM_COORDINATOR_AUDIT_TRIAL_H_
#define EFEDLLM_COORDINATOR_AUDIT_TRIAL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/stage_plan.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/audit_evidence.h"
#include "coordinator/audit_inputs.h"
#include "coordinator/audit_panel.h"
#include "coordinator/audit_queue.h"
#include "coordinator/audit_replay.h"
#include "coordinator/stage_replayer.h"
#include "incentive/audit_policy.h"
#include "layers/compute.h"
#include "model/stage_replay.h"

namespace efedllm {

enum class AuditOutcome {
  kHonest,
  kLied,         // evidence is kept
  kWithheld,     // its node does not show what it signed for: not proven, void
  kUndecidable,  // no fault of the node
  kAway,         // its node went away, or lost what it kept with its process: not proven, no blame
  kDropped,      // there was no time
  kLater,        // of a trial: something is missing that may still come
};
// "honest", "lied", "withheld", "undecidable", "away", "dropped", "later".
absl::string_view AuditOutcomeName(AuditOutcome outcome);

struct AuditResult {
  AuditJob job;
  AuditOutcome outcome = AuditOutcome::kUndecidable;
  std::string detail;                    // one line, for people; may be empty
  bool fault = false;                    // of kLied: looks like a fault of memory, not a purpose
  std::optional<KeptEvidence> evidence;  // of kLied, where the disk took it
  std::vector<std::pair<NodeId, AuditVerdict::Verifier>> verifiers;  // that were asked
};

// All that is borrowed outlives the trial; functions are called on its thread.
struct AuditTrialParts {
  const Clock& clock;
  const AuditClaims& claims;
  KeptRowsSource& rows;
  BasesOfStage bases;
  std::string model;  // id
  StageReplayOptions replay;
  StageReplay::LayerSource layers;
  EvidenceStore& evidence;
  // Who may verify for this stage; null: nobody, the coordinator computes all.
  std::function<std::vector<AuditVerifier>(const ReceiptStage& stage)> verifiers;
  std::function<std::string(NodeId node)> owner;  // needed with verifiers
  StageReplayer* replayer = nullptr;              // asks them, and suspects; null: nobody is asked
  std::function<uint64_t(LotteryPurpose purpose, const TakenClaim& claim)> draw;
  uint64_t recheck_ppm = 0;  // of verifiers' answers
  uint64_t planted_ppm = 0;  // of what verifiers could be asked: with altered inputs instead
  // Between steps of a replay: may wait, so that requests go first; Cancelled ends the trial.
  std::function<absl::Status()> before_step;
  // At once when a node's lie is proven: its result may follow seconds later, with what was found
  // of how it lied. May be null.
  std::function<void(NodeId node)> on_proven;
};

// Not thread-safe.
class AuditTrial {
 public:
  // compute is borrowed and outlives this.
  AuditTrial(AuditTrialParts parts, Compute& compute);

  // jobs: of one stage of one epoch. Results in another order. allow_unclaimed: see
  // AuditInputCollector.
  std::vector<AuditResult> Judge(std::vector<AuditJob> jobs, bool allow_unclaimed);

  uint64_t rows_replayed() const { return rows_replayed_; }

 private:
  // A verifier's answer: the claim's outputs.
  struct Testimony {
    AuditVerifier verifier;
    Matrix rows;
  };
  // One chunk on trial.
  struct Case {
    AuditJob job;
    std::shared_ptr<const AuditInputs> inputs;  // maybe of more chunks of the sequence
    EdgeBases bases;
    AuditCase facts;
    std::vector<AuditVerifier> verifiers;  // that may be asked
    std::optional<AuditVerifier> planted;  // is asked something else about it
    std::optional<Testimony> first, second;
    Matrix right;                       // the outputs, as the coordinator computes them
    std::optional<ReplayedRows> again;  // of all positions, with all layers
    std::vector<VerifierWord> silent;
  };

  absl::StatusOr<Case> Prepare(AuditJob job, const std::vector<Case>& before,
                               bool allow_unclaimed) const;
  absl::Status ReplayTogether(absl::Span<Case* const> cases);
  absl::Status Advance(Case& audited, AuditStep step);
  std::optional<Sha256Digest> AskVerifier(Case& audited, LotteryPurpose purpose,
                                          std::optional<Testimony>& testimony);
  absl::Status ReplayAgain(Case& audited);
  AuditResult Finish(Case& audited, const AuditVerdict& verdict);
  void KeepEvidence(Case& audited, AuditResult& result);

  // audit_trial_verifiers.cc: what others say.
  // Asks about altered inputs, and computes the answer.
  void AskPlanted(const Case& audited, AuditResult& result);
  absl::StatusOr<Matrix> OutputsOf(StageReplay& replay, const TakenClaim& claim, Matrix rows);
  void JudgeVerifier(const Case& audited, const Testimony& testimony,
                     AuditVerdict::Verifier verdict, AuditResult& result) const;
  void KeepVerifierLie(const AuditJob& job, const Testimony& testimony, ConstMatrixRef right,
                       std::optional<uint32_t> altered_position) const;
  AuditEvidence Evidence(const Case& audited) const;

  const AuditTrialParts parts_;
  Compute& compute_;
  const AuditInputCollector collector_;
  AuditPanel panel_;
  StageReplay replay_;
  uint64_t rows_replayed_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_TRIAL_H_
