// Brings together what a chunk was computed from: all inputs of its sequence up to its end, as
// their nodes kept them, and each checked against what was signed.
#ifndef EFEDLLM_COORDINATOR_AUDIT_INPUTS_H_
#define EFEDLLM_COORDINATOR_AUDIT_INPUTS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sha256.h"
#include "coordinator/audit_claims.h"
#include "coordinator/audit_replay.h"
#include "coordinator/kept_rows_source.h"
#include "coordinator/receipt_sink.h"

namespace efedllm {

// Of the boundaries in front of a stage and behind it.
struct EdgeBases {
  BasisPtr input, output;
};
// FailedPrecondition: they are not known any more.
using BasesOfStage = std::function<absl::StatusOr<EdgeBases>(const ReceiptStage& stage)>;

// Of positions 0, 1, ... of one sequence.
struct AuditInputs {
  std::vector<CodedRows> pieces;
  std::vector<Sha256Digest> digests;  // of all their rows
  uint32_t unclaimed = 0;  // positions that nobody signed for: the node's own word stands for them
};

// Of the first rows: [rows, d_model]. Errors as DecodeRows.
absl::StatusOr<Matrix> DecodeInputs(const AuditInputs& inputs, uint32_t rows, size_t d_model);

// Blocks for as long as transfers take. claims and rows are borrowed.
class AuditInputCollector {
 public:
  AuditInputCollector(const AuditClaims& claims, KeptRowsSource& rows, BasesOfStage bases)
      : claims_(claims), rows_(rows), bases_(std::move(bases)) {}

  // The inputs at positions [0, claim's end).
  // allow_unclaimed: positions may be taken that nobody has claimed yet. Unavailable: they are
  // not all claimed, or a node can't be reached, and later it may do; NotFound: the node does not
  // have what it signed for, or shows something else; FailedPrecondition: it can't be known what
  // the rows mean.
  absl::StatusOr<AuditInputs> Collect(const TakenClaim& claim, bool allow_unclaimed) const;

  // Are these rows, by their digests and from position 0 on, what the claim was computed from, with
  // all that stands in front of it? Nothing is fetched: false also where that is not known.
  bool AreInputsOf(const TakenClaim& claim, absl::Span<const Sha256Digest> rows) const;

  // The outputs that the claim is of. Errors as Collect.
  absl::StatusOr<CodedRows> Outputs(const TakenClaim& claim) const;

 private:
  // What a node kept of one version of a sequence.
  struct Version {
    uint32_t number = 0;
    std::vector<CodedRow> rows;
  };

  absl::StatusOr<std::vector<CodedRow>> Fetch(const TakenClaim& claim, uint32_t first,
                                              uint32_t tokens, bool outputs,
                                              uint32_t version) const;
  absl::StatusOr<Version> FetchClaimed(const ClaimedRows& claimed) const;
  absl::StatusOr<CodedRows> PieceOf(const TakenClaim& claim, const InputPiece& piece,
                                    absl::Span<const CodedRow> own, bool allow_unclaimed,
                                    uint32_t& unclaimed) const;
  absl::StatusOr<CodedRows> WithBasis(const ClaimedRows& claimed, std::vector<CodedRow> rows) const;

  const AuditClaims& claims_;
  KeptRowsSource& rows_;
  const BasesOfStage bases_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_INPUTS_H_
