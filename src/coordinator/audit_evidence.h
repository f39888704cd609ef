// What is kept of a chunk that was proven wrong, or of a receipt that was refused, for people and
// for appeals: a JSON file for each in <state dir>/evidence.
#ifndef EFEDLLM_COORDINATOR_AUDIT_EVIDENCE_H_
#define EFEDLLM_COORDINATOR_AUDIT_EVIDENCE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "cluster/receipt.h"
#include "common/sha256.h"
#include "coordinator/audit_difference.h"
#include "coordinator/audit_queue.h"
#include "coordinator/receipt_sink.h"
#include "nlohmann/json.hpp"

namespace efedllm {

// Another node's word on the same inputs.
struct VerifierWord {
  NodeId node;
  std::string answer;  // "as the coordinator", "as the claim", "neither", or why there is none
};

// What the suspect said when it was asked to compute the same inputs again, layer by layer.
struct SuspectWord {
  std::string answer;                       // "as the coordinator", or what else; why there is none
  std::optional<uint32_t> first_layer;      // of the model, behind which its rows differ
  std::optional<RowDifference> difference;  // there, from position 0 on
};

struct AuditEvidence {
  AuditJob job;
  absl::Time found;             // by the calendar
  std::string model;            // id
  Sha256Digest replayed = {};   // digest of the outputs as the coordinator computes them
  uint32_t unclaimed = 0;       // positions of the inputs that nobody had signed for
  std::string outputs_missing;  // why the claimed outputs are not here; empty: they are
  // Only where they are: its first row counts from the chunk's first position.
  RowDifference difference;
  CodedRow claimed_row, replayed_row;  // the first that differ
  std::vector<VerifierWord> verifiers;
  SuspectWord suspect;
};

// A verifier's answer that was proven wrong.
struct VerifierEvidence {
  AuditJob job;  // about which it was asked
  NodeId verifier;
  absl::Time found;   // by the calendar
  std::string model;  // id
  // The question was planted: this position's inputs had the opposite sign.
  std::optional<uint32_t> altered_position;
  RowDifference difference;  // its first row counts from the chunk's first position
};

// "<node>-e<epoch>-r<receipt>-refused".
std::string EvidenceId(const RefusedReceipt& refused);
// "<node>-e<epoch>-r<receipt>-c<chunk>": letters, digits and '-'.
std::string EvidenceId(const TakenClaim& claim);
// The same, and "-v<verifier>".
std::string EvidenceId(const VerifierEvidence& evidence);
nlohmann::json EvidenceToJson(const AuditEvidence& evidence);
nlohmann::json EvidenceToJson(const VerifierEvidence& evidence);
nlohmann::json EvidenceToJson(const RefusedReceipt& refused, absl::Time found);
// One line: "flipped bit 3 of dimension 17 at position 70 ...".
std::string EvidenceSummary(const AuditEvidence& evidence);

struct KeptEvidence {
  std::string id;
  Sha256Digest digest = {};  // of the file
};

class EvidenceStore {
 public:
  // The folder is made with the first file.
  explicit EvidenceStore(std::string folder) : folder_(std::move(folder)) {}

  // ResourceExhausted and others: the disk.
  absl::StatusOr<KeptEvidence> Put(const AuditEvidence& evidence) const;
  absl::StatusOr<KeptEvidence> Put(const VerifierEvidence& evidence) const;
  // found: by the calendar. AlreadyExists: one of this number was kept before, and that stays.
  absl::StatusOr<KeptEvidence> Put(const RefusedReceipt& refused, absl::Time found) const;
  // Ids, in their order.
  absl::StatusOr<std::vector<std::string>> List() const;
  // The file as it is. InvalidArgument: no id; NotFound: no such evidence.
  absl::StatusOr<std::string> Get(absl::string_view id) const;

 private:
  absl::StatusOr<KeptEvidence> Write(std::string id, const nlohmann::json& json) const;

  const std::string folder_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_EVIDENCE_H_
