#include "coordinator/audit_trial.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

AuditOutcome OutcomeOf(AuditVerdict::Node verdict) {
  switch (verdict) {
    case AuditVerdict::Node::kHonest:
      return AuditOutcome::kHonest;
    case AuditVerdict::Node::kLied:
      return AuditOutcome::kLied;
    case AuditVerdict::Node::kUndecidable:
    case AuditVerdict::Node::kOpen:
      break;
  }
  return AuditOutcome::kUndecidable;
}

// What a chunk's failed preparation means for it.
AuditResult ResultOf(AuditJob job, const absl::Status& status) {
  AuditResult result;
  result.job = std::move(job);
  result.detail = std::string(status.message());
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
    result.outcome = AuditOutcome::kLater;
  } else if (absl::IsNotFound(status) || absl::IsInvalidArgument(status) ||
             absl::IsDataLoss(status)) {
    result.outcome = AuditOutcome::kWithheld;
  }
  return result;
}

ReplayedStage StageOf(const TakenClaim& claim, const EdgeBases& bases) {
  const Assignment& assignment = claim.stage->assignment;
  return {assignment.layers, assignment.kv_type, assignment.codec, bases.output};
}

absl::Span<const CodedRow> RowsOf(const ReplayedRows& replayed, uint32_t first_wanted,
                                  const ChunkClaim& claim) {
  return absl::MakeConstSpan(replayed.coded)
      .subspan(claim.first_position - first_wanted, claim.tokens);
}

}  // namespace

absl::string_view AuditOutcomeName(AuditOutcome outcome) {
  switch (outcome) {
    case AuditOutcome::kHonest:
      return "honest";
    case AuditOutcome::kLied:
      return "lied";
    case AuditOutcome::kWithheld:
      return "withheld";
    case AuditOutcome::kUndecidable:
      return "undecidable";
    case AuditOutcome::kAway:
      return "away";
    case AuditOutcome::kDropped:
      return "dropped";
    case AuditOutcome::kLater:
      return "later";
  }
  return "?";
}

AuditTrial::AuditTrial(AuditTrialParts parts, Compute& compute)
    : parts_(std::move(parts)),
      compute_(compute),
      collector_(parts_.claims, parts_.rows, parts_.bases),
      panel_({parts_.verifiers, parts_.owner, parts_.replayer}, parts_.clock),
      replay_(parts_.replay, parts_.layers, compute) {}

// before: cases of the same stage, whose inputs may be this one's too.
absl::StatusOr<AuditTrial::Case> AuditTrial::Prepare(AuditJob job, const std::vector<Case>& before,
                                                     bool allow_unclaimed) const {
  const TakenClaim& claim = *job.claim;
  Case audited;
  ASSIGN_OR_RETURN(audited.bases, parts_.bases(*claim.stage));
  audited.facts.claimed = claim.claim.outputs.digest;
  for (const Case& other : before) {
    if (other.job.claim->claim.sequence != claim.claim.sequence) continue;
    if (!collector_.AreInputsOf(claim, other.inputs->digests)) continue;
    audited.inputs = other.inputs;
    break;
  }
  if (audited.inputs == nullptr) {
    ASSIGN_OR_RETURN(AuditInputs inputs, collector_.Collect(claim, allow_unclaimed));
    audited.inputs = std::make_shared<const AuditInputs>(std::move(inputs));
  }
  // What is not to wait, and what a node's honour hangs on, is the coordinator's own to compute.
  if (!job.prompt && !job.appealed) audited.verifiers = panel_.EligibleFor(claim);
  if (!audited.verifiers.empty()) {
    audited.facts.recheck = Wins(parts_.draw(LotteryPurpose::kRecheck, claim), parts_.recheck_ppm);
    if (Wins(parts_.draw(LotteryPurpose::kPlanted, claim), parts_.planted_ppm)) {
      audited.planted = panel_.Choose(claim, audited.verifiers, "",
                                      parts_.draw(LotteryPurpose::kVerifier, claim));
      audited.verifiers.clear();
    }
  }
  audited.job = std::move(job);
  return audited;
}

// The coordinator's own computation, of all of them in one pass.
absl::Status AuditTrial::ReplayTogether(absl::Span<Case* const> cases) {
  std::vector<ReplayedSequence> sequences;
  std::vector<const AuditInputs*> inputs;
  std::vector<size_t> sequence_of(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    const uint32_t first = cases[i]->job.claim->claim.first_position;
    const auto found = std::find(inputs.begin(), inputs.end(), cases[i]->inputs.get());
    sequence_of[i] = static_cast<size_t>(found - inputs.begin());
    if (found == inputs.end()) {
      inputs.push_back(cases[i]->inputs.get());
      sequences.push_back({cases[i]->inputs->pieces, first});
    }
    uint32_t& wanted = sequences[sequence_of[i]].first_wanted;
    wanted = std::min(wanted, first);
  }
  const auto before_step = [this](double) { return parts_.before_step(); };
  ASSIGN_OR_RETURN(const std::vector<ReplayedRows> replayed,
                   ReplayStage(replay_, StageOf(*cases[0]->job.claim, cases[0]->bases), sequences,
                               false, before_step));
  for (const ReplayedSequence& sequence : sequences) rows_replayed_ += sequence.positions();
  for (size_t i = 0; i < cases.size(); ++i) {
    const ReplayedRows& rows = replayed[sequence_of[i]];
    if (!rows.undecodable.ok()) return rows.undecodable;
    const uint32_t wanted = sequences[sequence_of[i]].first_wanted;
    const ChunkClaim& claim = cases[i]->job.claim->claim;
    cases[i]->facts.coordinator = DigestOfRows(RowsOf(rows, wanted, claim));
    cases[i]->right = Matrix(claim.tokens, rows.values.cols());
    std::copy_n(rows.values.ref().row(claim.first_position - wanted),
                size_t{claim.tokens} * rows.values.cols(), cases[i]->right.row(0));
  }
  return absl::OkStatus();
}

// Once more, with nothing that the first computation used: weights are read anew. All positions and
// layers are kept, for evidence.
absl::Status AuditTrial::ReplayAgain(Case& audited) {
  StageReplayOptions options = parts_.replay;
  options.weight_bytes = 0;
  StageReplay fresh(options, parts_.layers, compute_);
  const ReplayedSequence sequence{audited.inputs->pieces, 0};
  const auto before_step = [this](double) { return parts_.before_step(); };
  ASSIGN_OR_RETURN(std::vector<ReplayedRows> rows,
                   ReplayStage(fresh, StageOf(*audited.job.claim, audited.bases), {sequence}, true,
                               before_step));
  RETURN_IF_ERROR(rows[0].undecodable);
  rows_replayed_ += sequence.positions();
  audited.facts.coordinator_again = DigestOfRows(RowsOf(rows[0], 0, audited.job.claim->claim));
  audited.again = std::move(rows[0]);
  return absl::OkStatus();
}

absl::Status AuditTrial::Advance(Case& audited, AuditStep step) {
  AuditCase& facts = audited.facts;
  Case* const alone = &audited;
  switch (step) {
    case AuditStep::kAskFirst:
      facts.first = AskVerifier(audited, LotteryPurpose::kVerifier, audited.first);
      return facts.first ? absl::OkStatus() : ReplayTogether({&alone, 1});
    case AuditStep::kAskSecond:
      facts.second = AskVerifier(audited, LotteryPurpose::kSecond, audited.second);
      return facts.second ? absl::OkStatus() : ReplayTogether({&alone, 1});
    case AuditStep::kAskCoordinator:
      return ReplayTogether({&alone, 1});
    case AuditStep::kCoordinatorAgain:
      return ReplayAgain(audited);
    case AuditStep::kDone:
      break;
  }
  return absl::OkStatus();
}

void AuditTrial::KeepEvidence(Case& audited, AuditResult& result) {
  const AuditEvidence evidence = Evidence(audited);
  result.detail = EvidenceSummary(evidence);
  result.fault =
      evidence.outputs_missing.empty() && evidence.difference.pattern == FaultPattern::kFlippedBit;
  absl::StatusOr<KeptEvidence> kept = parts_.evidence.Put(evidence);
  if (kept.ok()) {
    result.evidence = *std::move(kept);
  } else {
    spdlog::error("evidence is not kept: {}", std::string(kept.status().message()));
  }
}

AuditResult AuditTrial::Finish(Case& audited, const AuditVerdict& verdict) {
  AuditResult result;
  result.outcome = OutcomeOf(verdict.node);
  if (result.outcome == AuditOutcome::kUndecidable) {
    result.detail = "the coordinator's two computations differ: its memory may be bad";
    spdlog::error("audit: {}", result.detail);
  }
  result.job = audited.job;
  if (result.outcome == AuditOutcome::kLied) {
    if (parts_.on_proven) parts_.on_proven(audited.job.claim->stage->node);
    KeepEvidence(audited, result);
  }
  if (audited.first) JudgeVerifier(audited, *audited.first, verdict.first, result);
  if (audited.second) JudgeVerifier(audited, *audited.second, verdict.second, result);
  if (audited.planted) AskPlanted(audited, result);
  return result;
}

std::vector<AuditResult> AuditTrial::Judge(std::vector<AuditJob> jobs, bool allow_unclaimed) {
  // The longest first: its inputs are those of the others of its sequence.
  std::stable_sort(jobs.begin(), jobs.end(), [](const AuditJob& a, const AuditJob& b) {
    return a.claim->claim.end() > b.claim->claim.end();
  });
  std::vector<AuditResult> results;
  std::vector<Case> cases;
  for (AuditJob& job : jobs) {
    absl::StatusOr<Case> prepared = Prepare(job, cases, allow_unclaimed);
    if (prepared.ok()) {
      cases.push_back(*std::move(prepared));
    } else {
      results.push_back(ResultOf(std::move(job), prepared.status()));
    }
  }
  std::vector<Case*> own;
  for (Case& audited : cases) {
    if (audited.verifiers.empty()) own.push_back(&audited);
  }
  // Each alone then, so that the one at fault is found.
  if (!own.empty()) ReplayTogether(own).IgnoreError();
  for (Case& audited : cases) {
    absl::Status status;
    AuditVerdict verdict;
    while (status.ok()) {
      verdict = JudgeAudit(audited.facts, !audited.verifiers.empty());
      if (verdict.next == AuditStep::kDone) break;
      status = Advance(audited, verdict.next);
    }
    results.push_back(status.ok() ? Finish(audited, verdict)
                                  : ResultOf(std::move(audited.job), status));
  }
  return results;
}

}  // namespace efedllm
