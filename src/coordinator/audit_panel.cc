#include "coordinator/audit_panel.h"

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "wire/replay_wire.h"

namespace efedllm {
namespace {

constexpr absl::Duration kLeftOutFor = absl::Minutes(10);
// Whoever is convicted must not put off by silence what follows from it.
constexpr absl::Duration kPatienceWithSuspects = absl::Seconds(2);

}  // namespace

std::optional<AuditVerifier> AuditPanel::Choose(const TakenClaim& claim,
                                                absl::Span<const AuditVerifier> verifiers,
                                                const std::string& not_of, uint64_t draw) const {
  // Who has no owner may be anybody's.
  const std::vector<std::string> excluded = {"", parts_.owner(claim.stage->node), not_of};
  std::vector<VerifierCandidate> candidates;
  candidates.reserve(verifiers.size());
  for (const AuditVerifier& verifier : verifiers) candidates.push_back(verifier.candidate);
  const std::optional<size_t> chosen = ChooseVerifier(candidates, excluded, draw);
  if (!chosen) return std::nullopt;
  return verifiers[*chosen];
}

std::vector<AuditVerifier> AuditPanel::EligibleFor(const TakenClaim& claim) const {
  if (parts_.replayer == nullptr || !parts_.verifiers) return {};
  std::vector<AuditVerifier> verifiers = parts_.verifiers(*claim.stage);
  std::erase_if(verifiers, [&](const AuditVerifier& verifier) {
    const auto found = left_out_until_.find(verifier.candidate.node);
    return found != left_out_until_.end() && clock_.Now() < found->second;
  });
  if (!Choose(claim, verifiers, "", 0)) verifiers.clear();
  return verifiers;
}

absl::StatusOr<Matrix> AuditPanel::Ask(const AuditVerifier& verifier, const TakenClaim& claim,
                                       ConstMatrixRef inputs) {
  const Assignment& stage = claim.stage->assignment;
  absl::StatusOr<StageReplayAnswer> answer =
      parts_.replayer->Ask(verifier.candidate.node, verifier.address,
                           {stage, stage.layers.last, inputs, claim.claim.first_position});
  if (answer.ok()) return std::move(answer->rows);
  left_out_until_[verifier.candidate.node] = clock_.Now() + kLeftOutFor;
  return answer.status();
}

SuspectWord AuditPanel::AskSuspect(const TakenClaim& claim, ConstMatrixRef inputs,
                                   absl::Span<const Matrix> after_layer) const {
  SuspectWord word;
  if (parts_.replayer == nullptr) return word;
  const Assignment& stage = claim.stage->assignment;
  const auto ask = [&](uint32_t through, uint32_t first_wanted) {
    return parts_.replayer->Ask(claim.stage->node, claim.stage->address,
                                {stage, through, inputs, first_wanted, kPatienceWithSuspects});
  };
  const auto ours = [&](size_t layer) -> ConstMatrixRef {
    return {after_layer[layer].ref().data, inputs.rows, inputs.cols};
  };
  const absl::StatusOr<StageReplayAnswer> all = ask(stage.layers.last, claim.claim.first_position);
  if (!all.ok()) {
    word.answer = std::string(all.status().message());
    return word;
  }
  size_t layer = 0;
  while (layer < after_layer.size() && layer < all->after_layer.size() &&
         all->after_layer[layer] == DigestOfValues(ours(layer))) {
    ++layer;
  }
  if (layer == after_layer.size() || layer == all->after_layer.size()) {
    word.answer = "as the coordinator";
    return word;
  }
  word.first_layer = stage.layers.first + static_cast<uint32_t>(layer);
  word.answer = absl::StrCat("other rows behind layer ", *word.first_layer);
  const absl::StatusOr<StageReplayAnswer> rows = ask(*word.first_layer + 1, 0);
  if (!rows.ok()) return word;
  const RowDifference difference = CompareRows(rows->rows.ref(), ours(layer), 0, {});
  if (difference.rows == 0) {
    absl::StrAppend(&word.answer, ", but not when it was asked for them");
  } else {
    word.difference = difference;
  }
  return word;
}

}  // namespace efedllm
