// Other nodes that audits ask what layers make of a claim's inputs: verifiers for their word on a
// chunk, and a suspect for the layer in which it goes wrong.
#ifndef EFEDLLM_COORDINATOR_AUDIT_PANEL_H_
#define EFEDLLM_COORDINATOR_AUDIT_PANEL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/audit_evidence.h"
#include "coordinator/receipt_sink.h"
#include "coordinator/stage_replayer.h"
#include "incentive/audit_policy.h"
#include "tensor/matrix.h"

namespace efedllm {

// A node that holds layers, and where it can be asked.
struct AuditVerifier {
  VerifierCandidate candidate;
  std::string address;
};

// All borrowed, and outlives the panel.
struct AuditPanelParts {
  // Who may verify for this stage; null: nobody, the coordinator computes all.
  std::function<std::vector<AuditVerifier>(const ReceiptStage& stage)> verifiers;
  std::function<std::string(NodeId node)> owner;  // needed with verifiers
  StageReplayer* replayer = nullptr;              // null: nobody is asked
};

// Not thread-safe.
class AuditPanel {
 public:
  // clock is borrowed.
  AuditPanel(AuditPanelParts parts, const Clock& clock) : parts_(std::move(parts)), clock_(clock) {}

  // Those of whom ChooseVerifier may take one for this claim, but for who lately gave no answer: to
  // wait for such again and again would hold audits up. Empty: none of them.
  std::vector<AuditVerifier> EligibleFor(const TakenClaim& claim) const;
  // One of them, by the draw; not of this owner (empty: of any but the claim's).
  std::optional<AuditVerifier> Choose(const TakenClaim& claim,
                                      absl::Span<const AuditVerifier> verifiers,
                                      const std::string& not_of, uint64_t draw) const;

  // What the verifier makes of these inputs of [0, claim's end) at the claim's positions. Errors as
  // StageReplayer::Ask.
  absl::StatusOr<Matrix> Ask(const AuditVerifier& verifier, const TakenClaim& claim,
                             ConstMatrixRef inputs);

  // Asks the claim's own node for the same, layer by layer. after_layer: what the coordinator has
  // behind each of the stage's layers, at least as many rows as inputs.
  SuspectWord AskSuspect(const TakenClaim& claim, ConstMatrixRef inputs,
                         absl::Span<const Matrix> after_layer) const;

 private:
  const AuditPanelParts parts_;
  const Clock& clock_;
  std::map<NodeId, absl::Time> left_out_until_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_PANEL_H_
