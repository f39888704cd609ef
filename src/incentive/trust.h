// What is known of a node's key from evidence, and what follows from it by rule. Honesty comes from
// audits alone; availability and promptness from steps. A slow or flapping node loses work, never
// its honour; a proven lie ends both at once.
#ifndef EFEDLLM_INCENTIVE_TRUST_H_
#define EFEDLLM_INCENTIVE_TRUST_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"
#include "incentive/beta_evidence.h"
#include "incentive/incentive_rules.h"

namespace efedllm {

enum class TrustState {
  kProbation,    // every chunk is audited
  kTrusted,      // by chance, as its honesty says
  kQuarantined,  // gets no work until it is pardoned; its pay waits
  kEvicted,      // gets no work; what is not audited is void
};
// "probation", ...; the inverse gives nullopt for other words.
absl::string_view TrustStateName(TrustState state);
std::optional<TrustState> ParseTrustState(absl::string_view name);

enum class TrustEventKind {
  // Honesty. The coordinator's own computation decided each of them.
  kAuditClean,     // a chunk (weight: of them) was as claimed
  kLie,            // a signed claim was proven wrong; or a receipt forged, or signed twice
  kVerifierClean,  // its answer to an audit of another node was right
  kVerifierLie,    // and was proven wrong
  kWithheld,       // it did not deliver bytes within the audit window, without having been away
  kDispute,        // it and a neighbour claim other bytes on their edge, and nothing decides
  kPardon,         // an operator's, after its work was audited again
  // Reliability, as the coordinator itself saw it. weight: steps.
  kAnswered,  // steps it took part in to the end
  kFailed,    // timeouts, lost connections, broken hops that were its own
  kInTime,    // steps within the time that the plan gave them
  kLate,
  // Of neither: it went away, or its process did, before it showed what an audit asked for. No
  // blame, but all that it computes is audited again.
  kAway,
};
absl::string_view TrustEventName(TrustEventKind kind);
std::optional<TrustEventKind> ParseTrustEvent(absl::string_view name);

struct TrustEvent {
  TrustEventKind kind = TrustEventKind::kAuditClean;
  int64_t unix_seconds = 0;
  double weight = 1;     // of kAuditClean, kVerifierClean and reliability
  NodeId peer;           // of kDispute
  bool fault = false;    // of kLie: looks like a fault of memory, not like a purpose
  std::string why;       // of kLie: how it was proven, where not by an audit
  std::string evidence;  // id under which it is kept; at most 128 bytes
};

struct Dispute {
  NodeId peer;
  int64_t unix_seconds = 0;
  friend bool operator==(const Dispute&, const Dispute&) = default;
};

// The history of one key. A default one is a new key's.
struct TrustRecord {
  TrustState state = TrustState::kProbation;
  BetaEvidence honesty, availability, promptness;
  int64_t unix_seconds = 0;  // as of when the evidence is; 0: there is none
  double clean_chunks = 0;   // audited without a fault since probation began
  double withheld = 0;       // fades as honesty does
  uint64_t verifier_lies = 0;
  uint64_t lies = 0;
  uint64_t pardons = 0;
  bool fault = false;             // of the last lie
  std::vector<Dispute> disputes;  // of different peers, the latest of each
  std::string evidence;           // of the last change of state

  friend bool operator==(const TrustRecord&, const TrustRecord&) = default;
};

struct TrustTransition {
  TrustState from = TrustState::kProbation;
  TrustState to = TrustState::kProbation;
  std::string reason;    // for people
  std::string evidence;  // the event's
};

struct TrustChange {
  TrustRecord record;
  std::optional<TrustTransition> transition;  // if the state changed
};

// The record after an event. Events count in the order in which they are applied; one that is older
// than the record fades nothing. Nothing changes an evicted node but a pardon of what looks like a
// fault; see MayBePardoned.
TrustChange ApplyTrustEvent(const IncentiveRules& rules, const TrustRecord& record,
                            const TrustEvent& event);

// The record as of a later time: evidence faded, and a trusted node on probation again if too
// little is left of it.
TrustChange AgeTrust(const IncentiveRules& rules, const TrustRecord& record, int64_t unix_seconds);

// FailedPrecondition, with the reason: it is not in quarantine, nor evicted for what looks like a
// fault.
absl::Status MayBePardoned(const TrustRecord& record);

// In [0, 1]: the quantile of the rules, of what is kept in the record (so age it first).
double HonestyBound(const IncentiveRules& rules, const TrustRecord& record);
double AvailabilityBound(const IncentiveRules& rules, const TrustRecord& record);
double PromptnessBound(const IncentiveRules& rules, const TrustRecord& record);

// May it hold a stage? And what share of its measured speed should a planner count on: the product
// of both bounds of reliability, 0 if it may not.
bool MayWork(const TrustRecord& record);
double RoutingShare(const IncentiveRules& rules, const TrustRecord& record);

// For storage and for people. FromJson is for what ToJson wrote: DataLoss else.
nlohmann::json TrustToJson(const TrustRecord& record);
absl::StatusOr<TrustRecord> TrustFromJson(const nlohmann::json& json);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_TRUST_H_
