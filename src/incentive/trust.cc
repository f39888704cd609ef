#include "incentive/trust.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace efedllm {
namespace {

constexpr double kSecondsPerHour = 3600;
constexpr size_t kMostEvidenceIdBytes = 128;

constexpr std::array<const char*, 4> kStateNames = {"probation", "trusted", "quarantined",
                                                    "evicted"};
constexpr std::array<const char*, 12> kEventNames = {
    "audit clean", "lie",      "verifier clean", "verifier lie", "withheld", "dispute",
    "pardon",      "answered", "failed",         "in time",      "late",     "away"};

double Share(uint64_t ppm) { return static_cast<double>(ppm) / static_cast<double>(kWhole); }

double HonestyHalfLife(const IncentiveRules& rules) {
  return kSecondsPerHour * static_cast<double>(rules.honesty_half_life_hours);
}

void Fade(const IncentiveRules& rules, int64_t now, TrustRecord& record) {
  if (record.unix_seconds == 0) record.unix_seconds = now;
  if (now <= record.unix_seconds) return;
  const auto seconds = static_cast<double>(now - record.unix_seconds);
  const double honesty = HonestyHalfLife(rules);
  const double reliability =
      kSecondsPerHour * static_cast<double>(rules.reliability_half_life_hours);
  record.honesty = Forget(record.honesty, seconds, honesty);
  record.availability = Forget(record.availability, seconds, reliability);
  record.promptness = Forget(record.promptness, seconds, reliability);
  record.withheld = Forget({0, record.withheld}, seconds, honesty).bad;
  record.disputes.erase(std::remove_if(record.disputes.begin(), record.disputes.end(),
                                       [&](const Dispute& dispute) {
                                         return static_cast<double>(now - dispute.unix_seconds) >
                                                honesty;
                                       }),
                        record.disputes.end());
  record.unix_seconds = now;
}

// Only the peers count, so that one neighbour alone can't bring a node down.
void AddDispute(const IncentiveRules& rules, const TrustEvent& event, TrustRecord& record) {
  for (Dispute& dispute : record.disputes) {
    if (dispute.peer != event.peer) continue;
    dispute.unix_seconds = std::max(dispute.unix_seconds, event.unix_seconds);
    return;
  }
  if (record.disputes.size() < rules.dispute_peers) {
    record.disputes.push_back({event.peer, event.unix_seconds});
  }
}

void AddEvidence(const IncentiveRules& rules, const TrustEvent& event, TrustRecord& record) {
  const double weight = event.weight > 0 ? std::min(event.weight, kMostEvidence) : 0;
  switch (event.kind) {
    case TrustEventKind::kAuditClean:
      record.honesty = Add(record.honesty, weight, 0);
      record.clean_chunks = std::min(record.clean_chunks + weight, 1e15);
      break;
    case TrustEventKind::kLie:
      // What was shown before is worth nothing any more.
      record.honesty = Add({0, record.honesty.bad}, 0, 1);
      record.clean_chunks = 0;
      record.fault = event.fault;
      ++record.lies;
      break;
    case TrustEventKind::kVerifierClean:
      break;  // answers are cheap to get right by telling the truth; they buy no trust
    case TrustEventKind::kVerifierLie:
      record.honesty = Add(record.honesty, 0, 1);
      record.fault = event.fault;
      ++record.verifier_lies;
      break;
    case TrustEventKind::kWithheld:
      record.withheld = Add({0, record.withheld}, 0, 1).bad;
      break;
    case TrustEventKind::kDispute:
      AddDispute(rules, event, record);
      break;
    case TrustEventKind::kPardon:
      break;
    case TrustEventKind::kAnswered:
      record.availability = Add(record.availability, weight, 0);
      break;
    case TrustEventKind::kFailed:
      record.availability = Add(record.availability, 0, weight);
      break;
    case TrustEventKind::kInTime:
      record.promptness = Add(record.promptness, weight, 0);
      break;
    case TrustEventKind::kLate:
      record.promptness = Add(record.promptness, 0, weight);
      break;
    case TrustEventKind::kAway:
      break;
  }
}

struct Next {
  TrustState state;
  std::string reason;
};

// The bound costs some microseconds, and most events don't change it: asked for only if it decides.
Next AfterTrustedOrProbation(const IncentiveRules& rules, const TrustRecord& record) {
  if (record.state == TrustState::kProbation) {
    if (record.clean_chunks < static_cast<double>(rules.probation_chunks))
      return {record.state, ""};
    const double bound = HonestyBound(rules, record);
    if (bound < Share(rules.trusted_at_ppm)) return {record.state, ""};
    return {TrustState::kTrusted,
            absl::StrFormat("%.0f chunks were audited without a fault: honesty is at least %.3f",
                            record.clean_chunks, bound)};
  }
  const double bound = HonestyBound(rules, record);
  if (bound >= Share(rules.probation_again_ppm)) return {record.state, ""};
  return {TrustState::kProbation,
          absl::StrFormat("evidence has faded: honesty is at least %.3f only", bound)};
}

// record: with the event's evidence in it. The first rule that holds.
Next NextState(const IncentiveRules& rules, const TrustRecord& record, const TrustEvent& event) {
  const TrustState state = record.state;
  if (event.kind == TrustEventKind::kPardon) {
    if (!MayBePardoned(record).ok()) return {state, ""};
    return {TrustState::kProbation, "pardoned: its work was audited again"};
  }
  if (state == TrustState::kEvicted) return {state, ""};
  if (event.kind == TrustEventKind::kLie && !event.why.empty()) {
    return {TrustState::kEvicted, event.why};
  }
  if (event.kind == TrustEventKind::kLie) {
    return {TrustState::kEvicted, event.fault ? "an audit proved its output wrong (looks like a "
                                                "fault of its memory)"
                                              : "an audit proved its output wrong"};
  }
  if (event.kind == TrustEventKind::kVerifierLie && record.verifier_lies >= rules.verifier_faults) {
    return {TrustState::kEvicted, absl::StrCat("its answer to an audit of another node was proven "
                                               "wrong (",
                                               record.verifier_lies, " so far)")};
  }
  if (state == TrustState::kQuarantined) return {state, ""};
  if (record.disputes.size() >= rules.dispute_peers) {
    return {TrustState::kQuarantined,
            absl::StrCat("undecidable disputes with ", record.disputes.size(),
                         " different neighbours")};
  }
  // Faded ones never add up to the whole number.
  if (record.withheld > static_cast<double>(rules.withheld_audits) - 0.5) {
    return {TrustState::kQuarantined,
            absl::StrFormat("did not deliver the bytes of %.0f audits", record.withheld)};
  }
  if (event.kind == TrustEventKind::kAway && state == TrustState::kTrusted) {
    return {TrustState::kProbation, "it went away before it showed what an audit asked for"};
  }
  return AfterTrustedOrProbation(rules, record);
}

TrustChange Settle(TrustRecord record, Next next, const std::string& evidence) {
  TrustChange change;
  if (next.state != record.state) {
    change.transition = {record.state, next.state, std::move(next.reason),
                         evidence.substr(0, kMostEvidenceIdBytes)};
    record.state = next.state;
    record.evidence = change.transition->evidence;
    if (next.state == TrustState::kProbation) {
      record.clean_chunks = 0;
      record.withheld = 0;
      record.disputes.clear();
    }
  }
  change.record = std::move(record);
  return change;
}

template <class Enum, size_t kCount>
std::optional<Enum> Parse(const std::array<const char*, kCount>& names, absl::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return static_cast<Enum>(std::distance(names.begin(), found));
}

}  // namespace

absl::string_view TrustStateName(TrustState state) {
  return kStateNames[static_cast<size_t>(state)];
}

std::optional<TrustState> ParseTrustState(absl::string_view name) {
  return Parse<TrustState>(kStateNames, name);
}

absl::string_view TrustEventName(TrustEventKind kind) {
  return kEventNames[static_cast<size_t>(kind)];
}

std::optional<TrustEventKind> ParseTrustEvent(absl::string_view name) {
  return Parse<TrustEventKind>(kEventNames, name);
}

TrustChange ApplyTrustEvent(const IncentiveRules& rules, const TrustRecord& record,
                            const TrustEvent& event) {
  TrustRecord next = record;
  Fade(rules, event.unix_seconds, next);
  AddEvidence(rules, event, next);
  const bool pardoned = event.kind == TrustEventKind::kPardon && MayBePardoned(next).ok();
  TrustChange change = Settle(next, NextState(rules, next, event), event.evidence);
  if (pardoned) ++change.record.pardons;
  return change;
}

TrustChange AgeTrust(const IncentiveRules& rules, const TrustRecord& record, int64_t unix_seconds) {
  TrustRecord next = record;
  Fade(rules, unix_seconds, next);
  const bool works = MayWork(next);
  Next state = works ? AfterTrustedOrProbation(rules, next) : Next{next.state, ""};
  return Settle(std::move(next), std::move(state), "");
}

absl::Status MayBePardoned(const TrustRecord& record) {
  if (record.state == TrustState::kQuarantined) return absl::OkStatus();
  if (record.state != TrustState::kEvicted) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the node is on ", TrustStateName(record.state), ": there is nothing to pardon"));
  }
  if (record.fault) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the node was evicted for a proven lie that does not look like a fault of its memory; it may "
      "enrol again with a new key");
}

double HonestyBound(const IncentiveRules& rules, const TrustRecord& record) {
  return LowerBound(record.honesty, 1, Share(rules.quantile_ppm));
}

double AvailabilityBound(const IncentiveRules& rules, const TrustRecord& record) {
  return LowerBound(record.availability, static_cast<double>(rules.reliability_prior),
                    Share(rules.quantile_ppm));
}

double PromptnessBound(const IncentiveRules& rules, const TrustRecord& record) {
  return LowerBound(record.promptness, static_cast<double>(rules.reliability_prior),
                    Share(rules.quantile_ppm));
}

bool MayWork(const TrustRecord& record) {
  return record.state == TrustState::kProbation || record.state == TrustState::kTrusted;
}

double RoutingShare(const IncentiveRules& rules, const TrustRecord& record) {
  if (!MayWork(record)) return 0;
  return AvailabilityBound(rules, record) * PromptnessBound(rules, record);
}

}  // namespace efedllm
