#include "incentive/audit_policy.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

namespace efedllm {
namespace {

constexpr absl::string_view kCommitmentDomain = "eFedLLM lottery commitment 1\n";
constexpr absl::string_view kDrawDomain = "eFedLLM lottery 1\n";

void AppendNumber(uint64_t value, size_t bytes, std::string& text) {
  for (size_t i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i)));
}

void AppendBytes(absl::Span<const uint8_t> bytes, std::string& text) {
  text.append(bytes.begin(), bytes.end());
}

Sha256Digest DigestOf(const std::string& text) {
  return Sha256({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

// The high part of draw x n: as good as a remainder, and monotone.
size_t Below(uint64_t draw, size_t n) { return static_cast<size_t>((__uint128_t{draw} * n) >> 64); }

AuditVerdict::Verifier Against(const std::optional<Sha256Digest>& answer,
                               const Sha256Digest& right) {
  if (!answer) return AuditVerdict::Verifier::kNone;
  return *answer == right ? AuditVerdict::Verifier::kRight : AuditVerdict::Verifier::kLied;
}

AuditVerdict::Verifier Unchecked(const std::optional<Sha256Digest>& answer) {
  return answer ? AuditVerdict::Verifier::kUnchecked : AuditVerdict::Verifier::kNone;
}

AuditVerdict NextStep(AuditStep step) {
  AuditVerdict verdict;
  verdict.next = step;
  return verdict;
}

// The coordinator has computed it, once at least.
AuditVerdict JudgeByCoordinator(const AuditCase& audit) {
  AuditVerdict verdict;
  const Sha256Digest& right = *audit.coordinator;
  if (right != audit.claimed) {
    if (!audit.coordinator_again) return NextStep(AuditStep::kCoordinatorAgain);
    if (*audit.coordinator_again != right) {
      verdict.node = AuditVerdict::Node::kUndecidable;
      verdict.first = Unchecked(audit.first);
      verdict.second = Unchecked(audit.second);
      return verdict;
    }
  }
  verdict.node = right == audit.claimed ? AuditVerdict::Node::kHonest : AuditVerdict::Node::kLied;
  verdict.first = Against(audit.first, right);
  verdict.second = Against(audit.second, right);
  return verdict;
}

}  // namespace

uint64_t AuditRatePpm(const IncentiveRules& rules, const TrustRecord& record) {
  if (record.state != TrustState::kTrusted) return kWhole;
  const double whole = static_cast<double>(kWhole);
  const double doubt = 1 - HonestyBound(rules, record);
  const double most = 1 - static_cast<double>(rules.trusted_at_ppm) / whole;
  const double share = std::clamp(doubt / most, 0.0, 1.0);
  const auto above = static_cast<double>(kWhole - rules.audit_floor_ppm);
  return rules.audit_floor_ppm + static_cast<uint64_t>(std::ceil(above * share * share));
}

Sha256Digest LotteryCommitment(const LotterySecret& secret) {
  std::string text(kCommitmentDomain);
  AppendBytes(secret, text);
  return DigestOf(text);
}

uint64_t Draw(const LotterySecret& secret, LotteryPurpose purpose, const ChunkTicket& ticket) {
  std::string text(kDrawDomain);
  AppendBytes(secret, text);
  AppendNumber(static_cast<uint64_t>(purpose), 1, text);
  AppendNumber(ticket.node.v, 8, text);
  AppendNumber(ticket.epoch.v, 8, text);
  AppendNumber(ticket.receipt, 8, text);
  AppendNumber(ticket.chunk, 4, text);
  AppendBytes(ticket.outputs, text);
  const Sha256Digest digest = DigestOf(text);
  uint64_t draw = 0;
  for (size_t i = 0; i < 8; ++i) draw = draw << 8 | digest[i];
  return draw;
}

bool Wins(uint64_t draw, uint64_t share_ppm) {
  return (__uint128_t{draw} * kWhole) >> 64 < share_ppm;
}

std::optional<size_t> ChooseVerifier(absl::Span<const VerifierCandidate> candidates,
                                     absl::Span<const std::string> excluded_owners, uint64_t draw) {
  std::map<absl::string_view, std::vector<size_t>> owners;  // in an order that nobody chose
  for (size_t i = 0; i < candidates.size(); ++i) {
    const VerifierCandidate& candidate = candidates[i];
    if (!candidate.holds_layers || !candidate.same_numerics ||
        candidate.state != TrustState::kTrusted) {
      continue;
    }
    if (std::find(excluded_owners.begin(), excluded_owners.end(), candidate.owner) !=
        excluded_owners.end()) {
      continue;
    }
    owners[candidate.owner].push_back(i);
  }
  if (owners.empty()) return std::nullopt;
  const auto owner = std::next(owners.begin(), static_cast<ptrdiff_t>(Below(draw, owners.size())));
  // What is left of the draw within its owner is uniform again.
  const uint64_t rest = draw * owners.size();
  return owner->second[Below(rest, owner->second.size())];
}

uint64_t DetectionPpm(const IncentiveRules& rules, bool by_coordinator) {
  return by_coordinator ? kWhole : rules.audit_recheck_ppm;
}

AuditVerdict JudgeAudit(const AuditCase& audit, bool second_available) {
  if (audit.coordinator) return JudgeByCoordinator(audit);
  if (!audit.first) return NextStep(AuditStep::kAskFirst);
  if (*audit.first == audit.claimed) {
    // Nothing but the coordinator's own computation accuses, and a second opinion is for
    // mismatches.
    if (audit.recheck) return NextStep(AuditStep::kAskCoordinator);
    AuditVerdict verdict;
    verdict.node = AuditVerdict::Node::kHonest;
    verdict.first = AuditVerdict::Verifier::kUnchecked;
    verdict.second = Unchecked(audit.second);
    return verdict;
  }
  if (!audit.second && second_available) return NextStep(AuditStep::kAskSecond);
  return NextStep(AuditStep::kAskCoordinator);
}

absl::string_view AuditNodeVerdictName(AuditVerdict::Node verdict) {
  switch (verdict) {
    case AuditVerdict::Node::kOpen:
      return "open";
    case AuditVerdict::Node::kHonest:
      return "honest";
    case AuditVerdict::Node::kLied:
      return "lied";
    case AuditVerdict::Node::kUndecidable:
      return "undecidable";
  }
  return "open";
}

AuditVerdict::Verifier JudgePlanted(const Sha256Digest& right, const Sha256Digest& answer) {
  return answer == right ? AuditVerdict::Verifier::kRight : AuditVerdict::Verifier::kLied;
}

PayDecision DecidePay(const IncentiveRules& rules, const PendingChunk& chunk, TrustState state) {
  if (chunk.disproved) return PayDecision::kVoid;
  if (state == TrustState::kEvicted) {
    return chunk.verified ? PayDecision::kPost : PayDecision::kVoid;
  }
  if (state == TrustState::kQuarantined || (chunk.picked && !chunk.verified)) {
    return PayDecision::kWait;
  }
  const auto longest = static_cast<int64_t>(rules.escrow_longest_hours) * 3600;
  const auto shortest = static_cast<int64_t>(rules.escrow_seconds);
  if (chunk.disputed) {
    return chunk.age_seconds >= shortest ? PayDecision::kVoid : PayDecision::kWait;
  }
  if (chunk.age_seconds >= std::max(longest, shortest)) {
    return chunk.away ? PayDecision::kVoid : PayDecision::kPost;
  }
  const bool proven = !chunk.away || state == TrustState::kTrusted;
  const bool over =
      proven && chunk.age_seconds >= shortest && chunk.later_chunks >= rules.escrow_chunks;
  return over ? PayDecision::kPost : PayDecision::kWait;
}

}  // namespace efedllm
