// What others say in a trial: verifiers, whose words are checked too, and the suspect.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "common/status_macros.h"
#include "coordinator/audit_trial.h"
#include "wire/replay_wire.h"

namespace efedllm {
namespace {

std::string AgreesWith(const Sha256Digest& answer, const AuditCase& facts) {
  if (facts.coordinator && answer == *facts.coordinator) return "as the coordinator";
  return answer == facts.claimed ? "as the claim" : "neither";
}

}  // namespace

// Its answer as the claim's node would have coded it.
std::optional<Sha256Digest> AuditTrial::AskVerifier(Case& audited, LotteryPurpose purpose,
                                                    std::optional<Testimony>& testimony) {
  const TakenClaim& claim = *audited.job.claim;
  const std::string asked = audited.first ? audited.first->verifier.candidate.owner : "";
  const std::optional<AuditVerifier> verifier =
      panel_.Choose(claim, audited.verifiers, asked, parts_.draw(purpose, claim));
  const absl::StatusOr<Matrix> inputs =
      DecodeInputs(*audited.inputs, claim.claim.end(), parts_.replay.config.d_model);
  if (!verifier || !inputs.ok()) return std::nullopt;
  absl::StatusOr<Matrix> rows = panel_.Ask(*verifier, claim, inputs->ref());
  if (!rows.ok()) {
    spdlog::debug("audit: {}", std::string(rows.status().message()));
    audited.silent.push_back({verifier->candidate.node, std::string(rows.status().message())});
    return std::nullopt;
  }
  testimony = Testimony{*verifier, *std::move(rows)};
  return DigestOfRows(
      EncodeRows(testimony->rows.ref(), claim.stage->assignment.codec, audited.bases.output));
}

// At the claim's positions.
absl::StatusOr<Matrix> AuditTrial::OutputsOf(StageReplay& replay, const TakenClaim& claim,
                                             Matrix rows) {
  const Assignment& stage = claim.stage->assignment;
  const uint32_t positions[] = {claim.claim.end()};
  ReplayHooks hooks;
  hooks.before_step = [this](double) { return parts_.before_step(); };
  RETURN_IF_ERROR(replay.Run(stage.layers, stage.kv_type, positions, rows.ref(), hooks));
  rows_replayed_ += rows.rows();
  Matrix wanted(claim.claim.tokens, rows.cols());
  std::copy_n(rows.row(claim.claim.first_position), wanted.ref().span().size(), wanted.row(0));
  return wanted;
}

void AuditTrial::AskPlanted(const Case& audited, AuditResult& result) {
  const TakenClaim& claim = *audited.job.claim;
  absl::StatusOr<Matrix> inputs =
      DecodeInputs(*audited.inputs, claim.claim.end(), parts_.replay.config.d_model);
  if (!inputs.ok()) return;
  // Nobody has seen an answer to these: who does not compute them has none, and who knows what is
  // claimed of the others has the wrong one.
  const uint64_t draw = parts_.draw(LotteryPurpose::kPlanted, claim);
  const uint32_t altered =
      claim.claim.first_position + static_cast<uint32_t>(draw % claim.claim.tokens);
  for (size_t i = 0; i < inputs->cols(); ++i) inputs->row(altered)[i] = -inputs->row(altered)[i];
  absl::StatusOr<Matrix> answer = panel_.Ask(*audited.planted, claim, inputs->ref());
  if (!answer.ok()) return;
  const Testimony testimony{*audited.planted, *std::move(answer)};
  const Sha256Digest said = DigestOfValues(testimony.rows.ref());
  const absl::StatusOr<Matrix> right = OutputsOf(replay_, claim, *inputs);
  if (!right.ok()) return;
  const AuditVerdict::Verifier verdict = JudgePlanted(DigestOfValues(right->ref()), said);
  if (verdict == AuditVerdict::Verifier::kLied) {
    StageReplayOptions options = parts_.replay;
    options.weight_bytes = 0;
    StageReplay fresh(options, parts_.layers, compute_);
    const absl::StatusOr<Matrix> again = OutputsOf(fresh, claim, *inputs);
    if (!again.ok()) return;
    if (DigestOfValues(again->ref()) != DigestOfValues(right->ref())) {
      spdlog::error("audit: two computations of a planted question differ: memory may be bad");
      return;
    }
    KeepVerifierLie(audited.job, testimony, right->ref(), altered);
  }
  result.verifiers.emplace_back(audited.planted->candidate.node, verdict);
}

void AuditTrial::JudgeVerifier(const Case& audited, const Testimony& testimony,
                               AuditVerdict::Verifier verdict, AuditResult& result) const {
  result.verifiers.emplace_back(testimony.verifier.candidate.node, verdict);
  if (verdict != AuditVerdict::Verifier::kLied) return;
  KeepVerifierLie(audited.job, testimony, audited.right.ref(), std::nullopt);
}

void AuditTrial::KeepVerifierLie(const AuditJob& job, const Testimony& testimony,
                                 ConstMatrixRef right,
                                 std::optional<uint32_t> altered_position) const {
  VerifierEvidence evidence;
  evidence.job = job;
  evidence.verifier = testimony.verifier.candidate.node;
  evidence.found = parts_.clock.WallNow();
  evidence.model = parts_.model;
  evidence.altered_position = altered_position;
  evidence.difference = CompareRows(testimony.rows.ref(), right, 0, {});
  spdlog::warn("audit: node {} answered wrongly as a verifier", NodeName(evidence.verifier));
  const absl::Status kept = parts_.evidence.Put(evidence).status();
  if (!kept.ok()) spdlog::error("evidence is not kept: {}", std::string(kept.message()));
}

AuditEvidence AuditTrial::Evidence(const Case& audited) const {
  const TakenClaim& claim = *audited.job.claim;
  AuditEvidence evidence;
  evidence.job = audited.job;
  evidence.found = parts_.clock.WallNow();
  evidence.model = parts_.model;
  evidence.replayed = *audited.facts.coordinator;
  evidence.unclaimed = audited.inputs->unclaimed;
  const ReplayedRows& ours = *audited.again;
  const absl::StatusOr<Matrix> inputs =
      DecodeInputs(*audited.inputs, static_cast<uint32_t>(ours.coded.size()), ours.values.cols());
  std::vector<ConstMatrixRef> early;
  if (inputs.ok()) {
    early.push_back(inputs->ref());
    const ConstMatrixRef of_claim = {inputs->ref().data, claim.claim.end(), inputs->cols()};
    evidence.suspect = panel_.AskSuspect(claim, of_claim, ours.after_layer);
  }
  for (const auto& [testimony, answer] : {std::pair(&audited.first, audited.facts.first),
                                          std::pair(&audited.second, audited.facts.second)}) {
    if (!*testimony || !answer) continue;
    evidence.verifiers.push_back(
        {(*testimony)->verifier.candidate.node, AgreesWith(*answer, audited.facts)});
  }
  evidence.verifiers.insert(evidence.verifiers.end(), audited.silent.begin(), audited.silent.end());
  const absl::StatusOr<CodedRows> shown = collector_.Outputs(claim);
  Matrix values(claim.claim.tokens, ours.values.cols());
  const absl::Status decoded =
      shown.ok() ? DecodeRows(shown->rows, audited.bases.output, values.ref()) : shown.status();
  if (!decoded.ok()) {
    evidence.outputs_missing = std::string(decoded.message());
    return evidence;
  }
  // As they were coded, like those of the claim.
  Matrix replayed(ours.coded.size(), values.cols());
  if (!DecodeRows(ours.coded, audited.bases.output, replayed.ref()).ok()) return evidence;
  for (size_t i = 0; i + 1 < ours.after_layer.size(); ++i) {
    early.push_back(ours.after_layer[i].ref());
  }
  const uint32_t first = claim.claim.first_position;
  evidence.difference = CompareRows(values.ref(), replayed.ref(), first, early);
  for (size_t i = 0; i < claim.claim.tokens; ++i) {
    if (ours.coded[first + i] == shown->rows[i]) continue;
    evidence.claimed_row = shown->rows[i];
    evidence.replayed_row = ours.coded[first + i];
    break;
  }
  return evidence;
}

}  // namespace efedllm
