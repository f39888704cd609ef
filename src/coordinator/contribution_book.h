// What nodes contributed, and what they get for it: receipts become pending pay, audits and time
// resolve it, trust follows the evidence, and all of it stands in the ledger. The rules are
// incentive/*; here is who asks them, and when.
#ifndef EFEDLLM_COORDINATOR_CONTRIBUTION_BOOK_H_
#define EFEDLLM_COORDINATOR_CONTRIBUTION_BOOK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/model_config.h"
#include "cluster/stage_plan.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/audit_claims.h"
#include "coordinator/audit_evidence.h"
#include "coordinator/audit_trial.h"
#include "coordinator/receipt_sink.h"
#include "incentive/audit_policy.h"
#include "incentive/incentive_rules.h"
#include "incentive/ledger.h"
#include "incentive/rewards.h"
#include "incentive/trust.h"

namespace efedllm {

// All borrowed, and functions are called with no lock of the book's held.
struct ContributionParts {
  const Clock& clock;
  const ModelConfig& config;
  Ledger& ledger;
  // Who owns a node: "" if nobody said, or it is not here any more.
  std::function<std::string(NodeId node)> owner;
  // Different owners that hold each layer of the range now.
  std::function<std::vector<uint32_t>(LayerRange layers)> owners_of_layers;
  // Which claims of a receipt are audited, in their order; what becomes of them comes by OnAudit.
  std::function<std::vector<bool>(const SignedReceipt& receipt,
                                  const std::vector<ClaimPtr>& claims)>
      pick;
  // Keeps a receipt that is held against its node.
  std::function<absl::StatusOr<KeptEvidence>(const RefusedReceipt& refused)> keep;
  // What API keys used since the last call, by key.
  std::function<std::map<std::string, KeyUsage>()> usage;
  // Gets no layers from now on, and nothing is built on what it computed; and the end of that.
  std::function<void(NodeId node, const std::string& why)> bar;
  std::function<void(NodeId node)> readmit;
  // Nobody can change what a node says on its way (TLS): a signature that is wrong is its own.
  bool safe_channels = true;
};

// How a node stands, for people.
struct NodeStanding {
  NodeId node;
  TrustRecord trust;
  double honesty_bound = 0;
  uint64_t audit_rate_ppm = kWhole;
  size_t pending_receipts = 0;
  Micros pending_pay = 0;
};

// Thread-safe.
class ContributionBook final : public ReceiptSink {
 public:
  // Takes up the trust, owners and pending pay that stand in the ledger, and bars who was barred.
  // Rules that are newer than the ledger's stand in it from now on; FailedPrecondition: they are
  // older.
  static absl::StatusOr<std::unique_ptr<ContributionBook>> Open(const IncentiveRules& rules,
                                                                ContributionParts parts);

  void OnReceipt(const SignedReceipt& receipt, const std::vector<ClaimPtr>& claims) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnAgreed(const ClaimPtr& /*claim*/) override {}
  void OnDispute(const EdgeDispute& dispute) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnRefused(const RefusedReceipt& refused) override ABSL_LOCKS_EXCLUDED(mu_);
  // kFailed or kLate, as the coordinator saw it.
  void OnLapse(NodeId node, TrustEventKind kind) ABSL_LOCKS_EXCLUDED(mu_);
  // Of a claim that was picked.
  void OnAudit(const AuditResult& result) ABSL_LOCKS_EXCLUDED(mu_);

  // Decides about pay whose time has come, hands owners once a day (UTC) what their nodes have, and
  // writes what happened since the last turn. About once a second, from one thread.
  void Turn() ABSL_LOCKS_EXCLUDED(mu_);
  // OK; or why work can't be booked now, in words for a client: then nobody should be given any.
  absl::Status accepting() const ABSL_LOCKS_EXCLUDED(mu_);

  // What share of a node's speed to count on, against that of a newcomer: 1, 0.75, 0.5 or 0.25, so
  // that plans don't follow every small change.
  double RoutingShare(NodeId node) const ABSL_LOCKS_EXCLUDED(mu_);
  // In millionths.
  uint64_t AuditRatePpm(NodeId node) const ABSL_LOCKS_EXCLUDED(mu_);
  // On probation again. NotFound: no such node; FailedPrecondition: it may not be pardoned, and
  // why.
  absl::Status Pardon(NodeId node) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<NodeStanding> Standings() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  enum class Chunk { kUnknown, kNotPicked, kOpen, kVerified, kAway, kWithheld, kDisputed, kLied };
  // A receipt whose pay is pending.
  struct Pending {
    PendingWork work;
    absl::Time since;         // wall clock
    uint64_t chunks_before;   // of the node, when it came
    uint64_t audit_rate_ppm;  // that was in force
    std::vector<Chunk> chunks;
    std::vector<std::pair<size_t, NodeId>> disputes;  // index of a chunk, and with whom
  };
  struct Node {
    TrustRecord trust;
    std::string owner;                          // as the ledger has it; "": not yet
    uint64_t chunks = 0;                        // of receipts taken since the start
    Micros last_pay = 0;                        // of the last of them
    std::map<std::string, Pending> open;        // by the key of its entry
    absl::Time written = absl::InfinitePast();  // its trust, to the ledger
    bool changed = false;                       // since then
  };
  // What is to be done when mu_ is free again.
  struct Consequences {
    std::vector<std::pair<NodeId, std::string>> barred;
    std::vector<NodeId> readmitted;
  };

  ContributionBook(const IncentiveRules& rules, ContributionParts parts)
      : rules_(rules), parts_(std::move(parts)) {}
  absl::Status Restore();
  absl::Status RestoreTrust(uint64_t size, Consequences& consequences)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status RestoreOwners(uint64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status AdoptRules();

  void Apply(NodeId id, TrustEvent event, Consequences& consequences)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Follow(NodeId id, const TrustChange& change, Consequences& consequences)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Act(const Consequences& consequences) ABSL_LOCKS_EXCLUDED(mu_);
  // Of a claim whose pay is pending; else null.
  Pending* FindPending(const TakenClaim& claim) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkClaim(const TakenClaim& claim, Chunk chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What others disputed with a node that is proven to lie speaks against them no more.
  void DropDisputesWith(NodeId liar) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Book(Entry entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Entry TrustEntry(NodeId id, const Node& node, const TrustTransition* transition)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // For a lie that no work is behind: as for one in a receipt like the last.
  void BookPenalty(NodeId id, const Node& node, const std::string& evidence)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ResolvePay(Node& node, absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Entry Resolution(const Pending& pending, PayDecision decision, absl::Time now) const;
  void BookUsage(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What nodes have that belong to somebody goes to him.
  void Settle(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  void Write() ABSL_LOCKS_EXCLUDED(mu_);

  const IncentiveRules rules_;
  const ContributionParts parts_;

  mutable absl::Mutex mu_;
  std::map<NodeId, Node> nodes_ ABSL_GUARDED_BY(mu_);
  std::vector<Entry> unwritten_ ABSL_GUARDED_BY(mu_);  // in order; bounded, see accepting()
  absl::Status ledger_status_ ABSL_GUARDED_BY(mu_);
  uint64_t serial_ ABSL_GUARDED_BY(mu_) = 0;  // of entries that have no name of their own
  absl::Time usage_booked_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::map<std::string, KeyUsage> usage_ ABSL_GUARDED_BY(mu_);  // since then
  int64_t settled_day_ ABSL_GUARDED_BY(mu_) = 0;                // since 1970
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_CONTRIBUTION_BOOK_H_
