#include "coordinator/audit_evidence.h"

#include <algorithm>
#include <bit>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "svd/codec.h"

namespace efedllm {
namespace {

constexpr size_t kMaxEvidenceBytes = 4 << 20;
constexpr absl::string_view kEnding = ".json";

std::string CodecOf(uint32_t number) {
  const std::optional<CodecSetting> setting = CodecFromNumber(number);
  return setting ? CodecLabel(*setting) : absl::StrCat("codec ", number);
}

std::string Hex(absl::string_view bytes) { return absl::BytesToHexString(bytes); }

nlohmann::json SideToJson(const ChunkSide& side) {
  return {{"digest", ToHex(side.digest)},
          {"codec", side.codec == 0 ? "several" : CodecOf(side.codec)},
          {"bytes", side.bytes}};
}

void AddSignedBytes(const SignedReceipt& receipt, nlohmann::json& json) {
  const Signature& signature = receipt.signature;
  json["signed_bytes"] = Hex(CanonicalBytes(receipt.receipt));
  json["signature"] = Hex({reinterpret_cast<const char*>(signature.data()), signature.size()});
}

nlohmann::json ReceiptToJson(const AuditJob& job) {
  nlohmann::json json = {{"number", job.claim->receipt_number},
                         {"chunk", job.claim->chunk_index},
                         {"manifest", ToHex(job.claim->stage->manifest)}};
  if (job.receipt != nullptr) AddSignedBytes(*job.receipt, json);
  return json;
}

std::string Date(absl::Time time) {
  return absl::FormatTime(absl::RFC3339_sec, time, absl::UTCTimeZone());
}

nlohmann::json ValueToJson(float value) {
  const auto bits = absl::StrFormat("%08x", std::bit_cast<uint32_t>(value));
  return {{"value", absl::StrFormat("%.9g", value)}, {"bits", bits}};
}

// first: the position of the rows that it counts from.
nlohmann::json DifferenceToJson(const RowDifference& difference, uint32_t first) {
  nlohmann::json json = {
      {"pattern", std::string(FaultPatternName(difference.pattern))},
      {"rows", difference.rows},
      {"values", difference.values},
      {"position", first + difference.row},
      {"dimension", difference.dimension},
      {"claimed", ValueToJson(difference.claimed)},
      {"replayed", ValueToJson(difference.replayed)},
      {"relative", absl::StrFormat("%.3g", difference.relative)},
      {"largest_relative", absl::StrFormat("%.3g", difference.largest_relative)}};
  if (difference.bit) json["bit"] = *difference.bit;
  if (difference.copied_row) json["copied_from_position"] = *difference.copied_row;
  if (difference.layers_skipped) json["layers_skipped"] = *difference.layers_skipped;
  if (difference.pattern == FaultPattern::kScaled) {
    json["factor"] = absl::StrFormat("%.6g", difference.factor);
  }
  return json;
}

bool IsId(absl::string_view id) {
  return !id.empty() && id.size() <= 100 && std::all_of(id.begin(), id.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-';
  });
}

}  // namespace

std::string EvidenceId(const TakenClaim& claim) {
  return absl::StrCat(NodeName(claim.stage->node), "-e", claim.stage->assignment.epoch.v, "-r",
                      claim.receipt_number, "-c", claim.chunk_index);
}

std::string EvidenceId(const RefusedReceipt& refused) {
  const Receipt& receipt = refused.receipt.receipt;
  return absl::StrCat(NodeName(receipt.node), "-e", receipt.epoch.v, "-r", receipt.number,
                      "-refused");
}

std::string EvidenceId(const VerifierEvidence& evidence) {
  return absl::StrCat(EvidenceId(*evidence.job.claim), "-v", NodeName(evidence.verifier));
}

nlohmann::json EvidenceToJson(const AuditEvidence& evidence) {
  const TakenClaim& claim = *evidence.job.claim;
  const Assignment& stage = claim.stage->assignment;
  nlohmann::json json = {{"id", EvidenceId(claim)},
                         {"summary", EvidenceSummary(evidence)},
                         {"found", Date(evidence.found)},
                         {"node", NodeName(claim.stage->node)},
                         {"model", evidence.model},
                         {"epoch", stage.epoch.v},
                         {"stage", stage.stage},
                         {"layers", {stage.layers.first, stage.layers.last}},
                         {"kv_type", std::string(KvTypeName(stage.kv_type))},
                         {"sequence", claim.claim.sequence.v},
                         {"positions", {claim.claim.first_position, claim.claim.end()}},
                         {"receipt", ReceiptToJson(evidence.job)},
                         {"inputs", SideToJson(claim.claim.inputs)},
                         {"outputs", SideToJson(claim.claim.outputs)},
                         {"replayed_outputs", ToHex(evidence.replayed)},
                         {"audit_rate_ppm", evidence.job.rate_ppm},
                         {"unclaimed_positions", evidence.unclaimed}};
  if (!evidence.outputs_missing.empty()) {
    json["outputs_missing"] = evidence.outputs_missing;
  } else {
    json["difference"] = DifferenceToJson(evidence.difference, claim.claim.first_position);
    json["difference"]["claimed_row"] = Hex(evidence.claimed_row.bytes);
    json["difference"]["replayed_row"] = Hex(evidence.replayed_row.bytes);
  }
  json["verifiers"] = nlohmann::json::array();
  for (const VerifierWord& word : evidence.verifiers) {
    json["verifiers"].push_back({{"node", NodeName(word.node)}, {"answer", word.answer}});
  }
  if (!evidence.suspect.answer.empty()) json["suspect"]["answer"] = evidence.suspect.answer;
  if (evidence.suspect.first_layer) {
    json["suspect"]["first_layer"] = *evidence.suspect.first_layer;
  }
  if (evidence.suspect.difference) {
    json["suspect"]["difference"] = DifferenceToJson(*evidence.suspect.difference, 0);
  }
  return json;
}

nlohmann::json EvidenceToJson(const VerifierEvidence& evidence) {
  const TakenClaim& claim = *evidence.job.claim;
  const Assignment& stage = claim.stage->assignment;
  const RowDifference& difference = evidence.difference;
  const std::string summary =
      absl::StrCat("answered an audit wrongly: ", std::string(FaultPatternName(difference.pattern)),
                   ", ", difference.values, " values in ", difference.rows, " rows");
  nlohmann::json json = {{"id", EvidenceId(evidence)},
                         {"summary", summary},
                         {"found", Date(evidence.found)},
                         {"node", NodeName(evidence.verifier)},
                         {"asked_about", EvidenceId(claim)},
                         {"model", evidence.model},
                         {"layers", {stage.layers.first, stage.layers.last}},
                         {"kv_type", std::string(KvTypeName(stage.kv_type))},
                         {"positions", {claim.claim.first_position, claim.claim.end()}},
                         {"planted", evidence.altered_position.has_value()},
                         {"difference", DifferenceToJson(difference, claim.claim.first_position)}};
  if (evidence.altered_position) json["altered_position"] = *evidence.altered_position;
  return json;
}

nlohmann::json EvidenceToJson(const RefusedReceipt& refused, absl::Time found) {
  const Receipt& receipt = refused.receipt.receipt;
  nlohmann::json said = {{"number", receipt.number}, {"manifest", ToHex(receipt.manifest)}};
  AddSignedBytes(refused.receipt, said);
  return {{"id", EvidenceId(refused)},
          {"summary",
           absl::StrCat("a receipt that is none (", std::string(ReceiptRefusalName(refused.why)),
                        "): ", refused.detail)},
          {"found", Date(found)},
          {"node", NodeName(receipt.node)},
          {"epoch", receipt.epoch.v},
          {"stage", receipt.stage},
          {"layers", {receipt.layers.first, receipt.layers.last}},
          {"receipt", std::move(said)}};
}

std::string EvidenceSummary(const AuditEvidence& evidence) {
  const ChunkClaim& claim = evidence.job.claim->claim;
  const std::string where = absl::StrCat("positions [", claim.first_position, ", ", claim.end(),
                                         ") of sequence ", claim.sequence.v);
  if (!evidence.outputs_missing.empty()) {
    return absl::StrCat(
        "signed for outputs that it does not show and that the inputs do not give: ", where);
  }
  const RowDifference& difference = evidence.difference;
  std::string summary(FaultPatternName(difference.pattern));
  if (difference.bit) absl::StrAppend(&summary, " ", *difference.bit);
  if (difference.layers_skipped) absl::StrAppend(&summary, " (", *difference.layers_skipped, ")");
  return absl::StrCat(summary, ": ", difference.values, " values in ", difference.rows,
                      " rows differ, the first at position ", claim.first_position + difference.row,
                      ", dimension ", difference.dimension, ": ",
                      absl::StrFormat("%.6g instead of %.6g, %.2g", difference.claimed,
                                      difference.replayed, difference.relative),
                      " of the row");
}

absl::StatusOr<KeptEvidence> EvidenceStore::Put(const AuditEvidence& evidence) const {
  return Write(EvidenceId(*evidence.job.claim), EvidenceToJson(evidence));
}

absl::StatusOr<KeptEvidence> EvidenceStore::Put(const VerifierEvidence& evidence) const {
  return Write(EvidenceId(evidence), EvidenceToJson(evidence));
}

absl::StatusOr<KeptEvidence> EvidenceStore::Put(const RefusedReceipt& refused,
                                                absl::Time found) const {
  const std::string id = EvidenceId(refused);
  if (Get(id).ok()) return absl::AlreadyExistsError(absl::StrCat(id, " was kept before"));
  return Write(id, EvidenceToJson(refused, found));
}

absl::StatusOr<KeptEvidence> EvidenceStore::Write(std::string id,
                                                  const nlohmann::json& json) const {
  RETURN_IF_ERROR(MakeDirectories(folder_, 0700));
  const std::string text = json.dump(2) + "\n";
  KeptEvidence kept;
  kept.id = std::move(id);
  kept.digest = Sha256({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder_, "/", kept.id, kEnding), text, 0600));
  return kept;
}

absl::StatusOr<std::vector<std::string>> EvidenceStore::List() const {
  std::vector<std::string> ids;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder_, error), end; !error && at != end;
       at.increment(error)) {
    std::string name = at->path().filename().string();
    if (!absl::EndsWith(name, kEnding)) continue;
    name.resize(name.size() - kEnding.size());
    if (IsId(name)) ids.push_back(std::move(name));
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return ErrnoStatus(error.value(), "read", folder_);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

absl::StatusOr<std::string> EvidenceStore::Get(absl::string_view id) const {
  if (!IsId(id)) return absl::InvalidArgumentError("this is no id of evidence");
  return ReadFile(absl::StrCat(folder_, "/", id, kEnding), kMaxEvidenceBytes);
}

}  // namespace efedllm
