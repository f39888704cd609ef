#include "coordinator/audit_claims.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace efedllm {
namespace {

constexpr int kMostForks = 64;  // of forks, until somebody computed something

bool Covers(const ChunkClaim& claim, uint32_t position) {
  return claim.first_position <= position && position < claim.end();
}

// Among claims of one node and epoch.
auto OrderOf(const TakenClaim& claim) {
  return std::make_tuple(claim.stage->assignment.epoch, claim.receipt_number, claim.chunk_index);
}

// What a claim of another time and place is worth to know the inputs of the audited one; the
// higher, the better. nullopt: nothing.
std::optional<int> Worth(const TakenClaim& audited, const TakenClaim& other, bool outputs) {
  const Assignment& ours = audited.stage->assignment;
  const Assignment& theirs = other.stage->assignment;
  if (outputs) {
    if (theirs.layers.last != ours.layers.first || theirs.epoch > ours.epoch) return std::nullopt;
    return 0;
  }
  if (theirs.layers.first != ours.layers.first) return std::nullopt;
  if (other.stage->node == audited.stage->node) {
    const bool forked = other.claim.sequence != audited.claim.sequence;
    if (forked || OrderOf(other) < OrderOf(audited)) return 2;
    return std::nullopt;
  }
  if (theirs.epoch < ours.epoch) return 1;
  return std::nullopt;
}

}  // namespace

AuditClaims::Sequence& AuditClaims::Touch(SequenceId id) {
  auto [found, is_new] = sequences_.try_emplace(id);
  if (!is_new) by_use_.erase(found->second.used);
  found->second.used = by_use_.insert(by_use_.begin(), id);
  return found->second;
}

const AuditClaims::Sequence* AuditClaims::Find(SequenceId id) const {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : &found->second;
}

void AuditClaims::Add(const ClaimPtr& claim) {
  absl::MutexLock lock(&mu_);
  Touch(claim->claim.sequence).claims.push_back(claim);
  ++count_;
  Shrink();
}

void AuditClaims::AddFork(const SequenceFork& fork) {
  absl::MutexLock lock(&mu_);
  Touch(fork.sequence).fork = fork;
  // The child's audits need what its parent's nodes said.
  if (Find(fork.parent) != nullptr) Touch(fork.parent);
  Shrink();
}

void AuditClaims::Shrink() {
  while ((count_ > most_ || sequences_.size() > most_) && by_use_.size() > 1) {
    const auto oldest = sequences_.find(by_use_.back());
    count_ -= oldest->second.claims.size();
    sequences_.erase(oldest);
    by_use_.pop_back();
  }
}

std::vector<ClaimedRows> AuditClaims::At(const TakenClaim& audited, SequenceId sequence,
                                         uint32_t position) const {
  const Sequence* known = Find(sequence);
  if (known == nullptr) return {};
  std::vector<std::pair<int, ClaimedRows>> all;
  for (auto claim = known->claims.rbegin(); claim != known->claims.rend(); ++claim) {
    if (!Covers((*claim)->claim, position)) continue;
    for (const bool outputs : {false, true}) {
      const std::optional<int> worth = Worth(audited, **claim, outputs);
      if (worth) all.push_back({*worth, {*claim, outputs}});
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<ClaimedRows> rows;
  rows.reserve(all.size());
  for (auto& [worth, claimed] : all) rows.push_back(std::move(claimed));
  return rows;
}

std::vector<InputPiece> AuditClaims::Before(const TakenClaim& claim) const {
  absl::MutexLock lock(&mu_);
  // Who stands at which positions: the sequence itself from its fork on, its parent before.
  std::vector<std::pair<uint32_t, SequenceId>> begins = {{0, claim.claim.sequence}};
  for (int i = 0; i < kMostForks; ++i) {
    const Sequence* sequence = Find(begins.back().second);
    if (sequence == nullptr || !sequence->fork) break;
    begins.back().first = sequence->fork->tokens;
    begins.push_back({0, sequence->fork->parent});
  }
  const auto at = [&](uint32_t position) {
    return std::find_if(begins.begin(), begins.end(),
                        [&](const auto& begin) { return begin.first <= position; })
        ->second;
  };
  std::vector<InputPiece> pieces;
  for (uint32_t position = 0; position < claim.claim.first_position; ++position) {
    const SequenceId sequence = at(position);
    std::vector<ClaimedRows> claimed = At(claim, sequence, position);
    const auto same = [](const ClaimedRows& a, const ClaimedRows& b) {
      return a.claim == b.claim && a.outputs == b.outputs;
    };
    if (!pieces.empty() && pieces.back().sequence == sequence &&
        std::equal(claimed.begin(), claimed.end(), pieces.back().claimed.begin(),
                   pieces.back().claimed.end(), same)) {
      ++pieces.back().tokens;
    } else {
      pieces.push_back({position, 1, sequence, std::move(claimed)});
    }
  }
  return pieces;
}

size_t AuditClaims::claims() const {
  absl::MutexLock lock(&mu_);
  return count_;
}

}  // namespace efedllm
