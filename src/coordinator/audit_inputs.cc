#include "coordinator/audit_inputs.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

// That a node keeps of a sequence, at most (worker/kept_rows.h).
constexpr uint32_t kMostVersions = 8;

std::string PositionsOf(const ChunkClaim& claim) {
  return absl::StrCat("positions [", claim.first_position, ", ", claim.end(), ") of sequence ",
                      claim.sequence.v);
}

bool MayComeLater(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

}  // namespace

absl::StatusOr<std::vector<CodedRow>> AuditInputCollector::Fetch(const TakenClaim& claim,
                                                                 uint32_t first, uint32_t tokens,
                                                                 bool outputs,
                                                                 uint32_t version) const {
  KeptRowsRequest request;
  request.epoch = claim.stage->assignment.epoch;
  request.sequence = claim.claim.sequence;
  request.first_position = first;
  request.tokens = tokens;
  request.outputs = outputs;
  request.version = version;
  return rows_.Fetch(claim.stage->node, claim.stage->address, request,
                     claim.stage->assignment.config.d_model);
}

// All rows of a claim's side, of the version that it was of.
absl::StatusOr<AuditInputCollector::Version> AuditInputCollector::FetchClaimed(
    const ClaimedRows& claimed) const {
  const ChunkClaim& claim = claimed.claim->claim;
  for (Version version; version.number < kMostVersions; ++version.number) {
    absl::StatusOr<std::vector<CodedRow>> rows =
        Fetch(*claimed.claim, claim.first_position, claim.tokens, claimed.outputs, version.number);
    if (absl::IsNotFound(rows.status())) continue;  // it may have been taken back since
    RETURN_IF_ERROR(rows.status());
    version.rows = *std::move(rows);
    if (DigestOfRows(version.rows) == claimed.side().digest) return version;
  }
  return absl::NotFoundError(absl::StrCat("node ", NodeName(claimed.claim->stage->node),
                                          " shows other ", claimed.outputs ? "outputs" : "inputs",
                                          " at ", PositionsOf(claim), " than it signed for"));
}

absl::StatusOr<CodedRows> AuditInputCollector::WithBasis(const ClaimedRows& claimed,
                                                         std::vector<CodedRow> rows) const {
  ASSIGN_OR_RETURN(EdgeBases bases, bases_(*claimed.claim->stage));
  return CodedRows{claimed.outputs ? std::move(bases.output) : std::move(bases.input),
                   std::move(rows)};
}

// own: what the audited node says stood in front of the chunk; empty where it has not got it.
absl::StatusOr<CodedRows> AuditInputCollector::PieceOf(const TakenClaim& claim,
                                                       const InputPiece& piece,
                                                       absl::Span<const CodedRow> own,
                                                       bool allow_unclaimed,
                                                       uint32_t& unclaimed) const {
  const auto begin = own.begin() + (own.empty() ? 0 : piece.first);
  const auto end = begin + (own.empty() ? 0 : piece.tokens);
  absl::Status why;  // nothing that is claimed here can be had; later rather than never
  const auto remember = [&why](const absl::Status& status) {
    if (why.ok() || MayComeLater(status)) why = status;
  };
  for (const ClaimedRows& claimed : piece.claimed) {
    const ChunkClaim& of = claimed.claim->claim;
    // Where the node's own word has all rows of the claim, none are fetched.
    if (of.sequence == claim.claim.sequence && !claimed.outputs && of.end() <= own.size()) {
      if (DigestOfRows(own.subspan(of.first_position, of.tokens)) == claimed.side().digest) {
        return WithBasis(claimed, std::vector<CodedRow>(begin, end));
      }
    }
    absl::StatusOr<Version> version = FetchClaimed(claimed);
    if (!version.ok()) {
      remember(version.status());
      continue;
    }
    const auto from = version->rows.begin() + (piece.first - of.first_position);
    if (!own.empty() && !std::equal(begin, end, from)) {
      remember(absl::NotFoundError(
          absl::StrCat("node ", NodeName(claim.stage->node), " shows other inputs in front of ",
                       PositionsOf(claim.claim), " than were signed for")));
      continue;
    }
    return WithBasis(claimed, std::vector<CodedRow>(std::make_move_iterator(from),
                                                    std::make_move_iterator(from + piece.tokens)));
  }
  if (!why.ok()) return why;
  if (!allow_unclaimed || own.empty()) {
    return absl::UnavailableError(absl::StrCat("positions [", piece.first, ", ",
                                               piece.first + piece.tokens, ") in front of ",
                                               PositionsOf(claim.claim), " are not claimed yet"));
  }
  unclaimed += piece.tokens;
  ASSIGN_OR_RETURN(EdgeBases bases, bases_(*claim.stage));
  return CodedRows{std::move(bases.input), std::vector<CodedRow>(begin, end)};
}

absl::StatusOr<AuditInputs> AuditInputCollector::Collect(const TakenClaim& claim,
                                                         bool allow_unclaimed) const {
  AuditInputs inputs;
  ASSIGN_OR_RETURN(Version version,
                   FetchClaimed({std::make_shared<const TakenClaim>(claim), false}));
  // What the node itself says stood in front of the chunk.
  std::vector<CodedRow> own;
  if (claim.claim.first_position > 0) {
    absl::StatusOr<std::vector<CodedRow>> before =
        Fetch(claim, 0, claim.claim.first_position, false, version.number);
    if (before.ok()) {
      own = *std::move(before);
    } else if (!absl::IsNotFound(before.status())) {
      return before.status();
    }
  }
  for (const InputPiece& piece : claims_.Before(claim)) {
    ASSIGN_OR_RETURN(CodedRows rows, PieceOf(claim, piece, own, allow_unclaimed, inputs.unclaimed));
    inputs.pieces.push_back(std::move(rows));
  }
  ASSIGN_OR_RETURN(EdgeBases bases, bases_(*claim.stage));
  inputs.pieces.push_back({std::move(bases.input), std::move(version.rows)});
  inputs.digests.reserve(claim.claim.end());
  for (const CodedRows& piece : inputs.pieces) {
    for (const CodedRow& row : piece.rows) {
      inputs.digests.push_back(RowDigest(row.codec, row.bytes));
    }
  }
  return inputs;
}

absl::StatusOr<Matrix> DecodeInputs(const AuditInputs& inputs, uint32_t rows, size_t d_model) {
  Matrix decoded(rows, d_model);
  size_t row = 0;
  for (const CodedRows& piece : inputs.pieces) {
    const size_t count = std::min<size_t>(piece.rows.size(), rows - row);
    RETURN_IF_ERROR(DecodeRows(absl::MakeConstSpan(piece.rows).first(count), piece.basis,
                               {decoded.row(row), count, d_model}));
    row += count;
  }
  return decoded;
}

bool AuditInputCollector::AreInputsOf(const TakenClaim& claim,
                                      absl::Span<const Sha256Digest> rows) const {
  const auto stand_at = [&](const ChunkClaim& of, const ChunkSide& side) {
    return of.end() <= rows.size() &&
           ChunkDigest(rows.subspan(of.first_position, of.tokens)) == side.digest;
  };
  if (!stand_at(claim.claim, claim.claim.inputs)) return false;
  for (const InputPiece& piece : claims_.Before(claim)) {
    if (!std::any_of(piece.claimed.begin(), piece.claimed.end(), [&](const ClaimedRows& claimed) {
          return stand_at(claimed.claim->claim, claimed.side());
        })) {
      return false;
    }
  }
  return true;
}

absl::StatusOr<CodedRows> AuditInputCollector::Outputs(const TakenClaim& claim) const {
  const ClaimedRows itself{std::make_shared<const TakenClaim>(claim), true};
  ASSIGN_OR_RETURN(Version version, FetchClaimed(itself));
  return WithBasis(itself, std::move(version.rows));
}

}  // namespace efedllm
