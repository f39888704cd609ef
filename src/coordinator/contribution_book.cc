#include "coordinator/contribution_book.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "incentive/audit_policy.h"
#include "incentive/settlement.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

std::string WorkKey(const Receipt& receipt) {
  return absl::StrCat("work:", NodeName(receipt.node), ":", receipt.epoch.v, ":", receipt.number);
}
std::string WorkKey(const TakenClaim& claim) {
  const Assignment& assignment = claim.stage->assignment;
  return absl::StrCat("work:", NodeName(claim.stage->node), ":", assignment.epoch.v, ":",
                      claim.receipt_number);
}

std::string Hex(const Sha256Digest& digest) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

// kept: nothing where it could not be.
Entry EvidenceEntry(NodeId node, const std::string& id, const std::optional<KeptEvidence>& kept,
                    const std::string& what, const std::string& work) {
  Entry entry{.key = absl::StrCat("evidence:", id), .kind = EntryKind::kEvidence};
  entry.about = NodeName(node);
  entry.memo = nlohmann::json{
      {"evidence", id},
      {"digest", kept ? Hex(kept->digest) : ""},
      {"what", what},
      {"work",
       work}}.dump();
  return entry;
}

// All that led to the amount, so that anybody can compute it again.
std::string WorkMemo(const Receipt& receipt, const RewardFactors& factors) {
  uint64_t bytes_in = 0, bytes_out = 0;
  for (const ChunkClaim& chunk : receipt.chunks) {
    bytes_in += chunk.inputs.bytes;
    bytes_out += chunk.outputs.bytes;
  }
  const std::string canonical = CanonicalBytes(receipt);
  const Sha256Digest digest = Sha256(
      absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(canonical.data()), canonical.size()));
  const nlohmann::json memo = {{"factors", RewardFactorsToJson(factors)},
                               {"stage", receipt.stage},
                               {"layers", {receipt.layers.first, receipt.layers.last}},
                               {"chunks", receipt.chunks.size()},
                               {"bytes_in", bytes_in},
                               {"bytes_out", bytes_out},
                               {"manifest", Hex(receipt.manifest)},
                               {"receipt", Hex(digest)}};
  return memo.dump();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ContributionBook>> ContributionBook::Open(
    const IncentiveRules& rules, ContributionParts parts) {
  std::unique_ptr<ContributionBook> book(new ContributionBook(rules, std::move(parts)));
  RETURN_IF_ERROR(book->AdoptRules());
  RETURN_IF_ERROR(book->Restore());
  return book;
}

absl::Status ContributionBook::AdoptRules() {
  const absl::Time now = parts_.clock.WallNow();
  ASSIGN_OR_RETURN(const std::vector<RecordedEntry> latest,
                   parts_.ledger.reader().Latest({1, EntryKind::kRules, ""}));
  const std::string text = CanonicalIncentiveRules(rules_);
  if (!latest.empty()) {
    const nlohmann::json memo = nlohmann::json::parse(latest[0].entry.memo, nullptr, false);
    const std::string known = memo.is_object() ? memo.value("rules", "") : "";
    ASSIGN_OR_RETURN(const IncentiveRules current, ParseCanonicalIncentiveRules(known));
    RETURN_IF_ERROR(CheckIncentiveRulesSuccessor(current, rules_));
    if (current == rules_) return absl::OkStatus();
  }
  Entry entry{.key = absl::StrCat("rules:", rules_.version), .kind = EntryKind::kRules};
  entry.time_micros = absl::ToUnixMicros(now);
  entry.about = Hex(IncentiveRulesDigest(rules_));
  entry.memo = nlohmann::json{{"version", rules_.version}, {"rules", text}}.dump();
  return parts_.ledger.Append({&entry, 1}).status();
}

absl::Status ContributionBook::Restore() {
  LedgerReader& ledger = parts_.ledger.reader();
  Consequences consequences;
  {
    absl::MutexLock lock(&mu_);
    ASSIGN_OR_RETURN(const uint64_t size, ledger.Size());
    serial_ = size;
    RETURN_IF_ERROR(RestoreTrust(size, consequences));
    RETURN_IF_ERROR(RestoreOwners(size));
    ASSIGN_OR_RETURN(const std::vector<PendingWork> pending, ledger.Pending());
    for (const PendingWork& work : pending) {
      // Its audit, if it was to have one, went with the process before: not the node's fault.
      nodes_[work.node].open[work.key] = {
          work, absl::FromUnixMicros(work.time_micros), 0, kWhole, {Chunk::kNotPicked}, {}};
    }
    ASSIGN_OR_RETURN(const std::vector<RecordedEntry> settlement,
                     ledger.Latest({1, EntryKind::kSettlement, ""}));
    settled_day_ =
        DayOf(settlement.empty() ? parts_.clock.WallNow()
                                 : absl::FromUnixMicros(settlement[0].entry.time_micros));
  }
  Act(consequences);
  return absl::OkStatus();
}

absl::Status ContributionBook::RestoreTrust(uint64_t size, Consequences& consequences) {
  ASSIGN_OR_RETURN(const std::vector<RecordedEntry> trust,
                   parts_.ledger.reader().Latest({size, EntryKind::kTrust, ""}));
  for (const RecordedEntry& recorded : trust) {  // the newest first
    const std::optional<NodeId> id = ParseNodeName(recorded.entry.about);
    if (!id || nodes_.count(*id) > 0) continue;
    const nlohmann::json memo = nlohmann::json::parse(recorded.entry.memo, nullptr, false);
    if (!memo.is_object() || !memo.contains("trust")) continue;
    ASSIGN_OR_RETURN(nodes_[*id].trust, TrustFromJson(memo["trust"]));
    if (!MayWork(nodes_[*id].trust)) {
      consequences.barred.emplace_back(*id, std::string(TrustStateName(nodes_[*id].trust.state)));
    }
  }
  return absl::OkStatus();
}

absl::Status ContributionBook::RestoreOwners(uint64_t size) {
  ASSIGN_OR_RETURN(const std::vector<RecordedEntry> owners,
                   parts_.ledger.reader().Latest({size, EntryKind::kOwner, ""}));
  for (const RecordedEntry& recorded : owners) {  // the newest first
    const std::optional<OwnerBinding> binding = OwnerBindingOf(recorded.entry);
    if (!binding) continue;
    std::string& owner = nodes_[binding->node].owner;
    if (owner.empty()) owner = binding->owner;
  }
  return absl::OkStatus();
}

void ContributionBook::OnReceipt(const SignedReceipt& signed_receipt,
                                 const std::vector<ClaimPtr>& claims) {
  const Receipt& receipt = signed_receipt.receipt;
  const std::vector<uint32_t> owners = parts_.owners_of_layers(receipt.layers);
  const std::string owner = parts_.owner(receipt.node);
  const absl::Time now = parts_.clock.WallNow();
  Pending pending;
  pending.work.key = WorkKey(receipt);
  pending.work.node = receipt.node;
  pending.work.time_micros = absl::ToUnixMicros(now);
  pending.since = now;
  pending.chunks.assign(receipt.chunks.size(), Chunk::kUnknown);
  for (const ChunkClaim& chunk : receipt.chunks) {
    pending.work.tokens += chunk.tokens;
    pending.work.flops +=
        ChunkWorkFlops(parts_.config, receipt.layers, chunk.first_position, chunk.tokens);
  }
  Consequences consequences;
  {
    absl::MutexLock lock(&mu_);
    Node& node = nodes_[receipt.node];
    if (!owner.empty() && owner != node.owner) {
      node.owner = owner;
      Book(OwnerEntry(receipt.node, owner, pending.work.time_micros));
    }
    const auto weight = static_cast<double>(receipt.chunks.size());
    for (const TrustEventKind kind : {TrustEventKind::kAnswered, TrustEventKind::kInTime}) {
      Apply(receipt.node, {.kind = kind, .weight = weight}, consequences);
    }
    pending.audit_rate_ppm = efedllm::AuditRatePpm(rules_, node.trust);
    pending.chunks_before = node.chunks;
    node.chunks += receipt.chunks.size();
    RewardFactors factors = MakeRewardFactors(rules_, pending.work.flops, node.trust, owners);
    factors.audit_rate_ppm = pending.audit_rate_ppm;
    pending.work.amount = RewardMicros(factors);
    node.last_pay = pending.work.amount;
    Book(PendingEntry(pending.work, WorkMemo(receipt, factors)));
    node.open[pending.work.key] = pending;
  }
  Act(consequences);
  const std::vector<bool> picked = parts_.pick(signed_receipt, claims);
  absl::MutexLock lock(&mu_);
  std::map<std::string, Pending>& open = nodes_[receipt.node].open;
  const auto found = open.find(pending.work.key);
  if (found == open.end()) return;
  for (size_t i = 0; i < found->second.chunks.size(); ++i) {
    Chunk& chunk = found->second.chunks[i];
    if (chunk != Chunk::kUnknown) continue;  // its audit is through already
    chunk = i < picked.size() && picked[i] ? Chunk::kOpen : Chunk::kNotPicked;
  }
}

void ContributionBook::OnAudit(const AuditResult& result) {
  const TakenClaim& claim = *result.job.claim;
  const NodeId id = claim.stage->node;
  const std::string evidence = result.evidence ? result.evidence->id : EvidenceId(claim);
  Consequences consequences;
  {
    absl::MutexLock lock(&mu_);
    switch (result.outcome) {
      case AuditOutcome::kHonest:
        MarkClaim(claim, Chunk::kVerified);
        Apply(id, {.kind = TrustEventKind::kAuditClean}, consequences);
        break;
      case AuditOutcome::kLied: {
        MarkClaim(claim, Chunk::kLied);
        Book(EvidenceEntry(id, evidence, result.evidence, result.detail, WorkKey(claim)));
        Apply(id, {.kind = TrustEventKind::kLie, .fault = result.fault, .evidence = evidence},
              consequences);
        break;
      }
      case AuditOutcome::kWithheld:
        MarkClaim(claim, Chunk::kWithheld);
        Apply(id, {.kind = TrustEventKind::kWithheld, .evidence = evidence}, consequences);
        break;
      case AuditOutcome::kAway:
        MarkClaim(claim, Chunk::kAway);
        Apply(id, {.kind = TrustEventKind::kAway}, consequences);
        break;
      case AuditOutcome::kUndecidable:
      case AuditOutcome::kDropped:
      case AuditOutcome::kLater:
        MarkClaim(claim, Chunk::kNotPicked);
        break;
    }
    for (const auto& [verifier, verdict] : result.verifiers) {
      if (verdict == AuditVerdict::Verifier::kRight) {
        Apply(verifier, {.kind = TrustEventKind::kVerifierClean}, consequences);
      } else if (verdict == AuditVerdict::Verifier::kLied) {
        Apply(verifier, {.kind = TrustEventKind::kVerifierLie, .evidence = evidence}, consequences);
      }
    }
  }
  Act(consequences);
}

void ContributionBook::OnLapse(NodeId node, TrustEventKind kind) {
  Consequences consequences;
  {
    absl::MutexLock lock(&mu_);
    Apply(node, {.kind = kind}, consequences);
  }
  Act(consequences);
}

void ContributionBook::OnDispute(const EdgeDispute& dispute) {
  Consequences consequences;
  {
    absl::MutexLock lock(&mu_);
    const auto node_of = [](const ClaimPtr& claim) {
      return claim == nullptr ? kCoordinatorNode : claim->stage->node;
    };
    const NodeId upstream = node_of(dispute.upstream), downstream = node_of(dispute.downstream);
    for (const auto& [claim, peer] :
         {std::pair(dispute.upstream, downstream), std::pair(dispute.downstream, upstream)}) {
      if (claim == nullptr) continue;
      TrustEvent event{
          .kind = TrustEventKind::kDispute, .peer = peer, .evidence = EvidenceId(*claim)};
      if (peer == kCoordinatorNode) {  // that is no dispute between two nodes
        event.kind = TrustEventKind::kLie;
        event.why = "it claims other bytes than crossed the edge between it and the coordinator";
        MarkClaim(*claim, Chunk::kLied);
      } else {
        MarkClaim(*claim, Chunk::kDisputed);
        Pending* pending = FindPending(*claim);
        if (pending != nullptr) pending->disputes.emplace_back(claim->chunk_index, peer);
      }
      Apply(claim->stage->node, std::move(event), consequences);
    }
  }
  Act(consequences);
}

void ContributionBook::OnRefused(const RefusedReceipt& refused) {
  const ReceiptRefusal why = refused.why;
  if (why == ReceiptRefusal::kUnknownStage || why == ReceiptRefusal::kBehind) return;
  if (why == ReceiptRefusal::kSignature && !parts_.safe_channels) return;
  const NodeId id = refused.receipt.receipt.node;
  {
    absl::MutexLock lock(&mu_);
    if (!MayWork(nodes_[id].trust)) return;  // all is said, and kept
  }
  const std::string evidence = EvidenceId(refused);
  const absl::StatusOr<KeptEvidence> kept = parts_.keep(refused);
  const bool before = absl::IsAlreadyExists(kept.status());
  if (!kept.ok() && !before) {
    spdlog::error("evidence {} is not kept: {}", evidence, Printable(kept.status().message(), 300));
  }
  // A number that is missing may be a message that was lost; the rest is signed by nobody else.
  const bool lie = why != ReceiptRefusal::kNumber;
  TrustEvent event{.kind = lie ? TrustEventKind::kLie : TrustEventKind::kWithheld,
                   .fault = why == ReceiptRefusal::kTime,  // its clock may be broken
                   .evidence = evidence};
  if (lie) event.why = absl::StrCat("it gave a receipt that is not one: ", refused.detail);
  Consequences consequences;
  {
    absl::MutexLock lock(&mu_);
    if (!before) {
      Book(EvidenceEntry(id, evidence, kept.ok() ? std::optional(*kept) : std::nullopt,
                         refused.detail, WorkKey(refused.receipt.receipt)));
    }
    if (lie) BookPenalty(id, nodes_[id], evidence);
    Apply(id, std::move(event), consequences);
  }
  Act(consequences);
}

ContributionBook::Pending* ContributionBook::FindPending(const TakenClaim& claim) {
  std::map<std::string, Pending>& open = nodes_[claim.stage->node].open;
  const auto found = open.find(WorkKey(claim));
  if (found == open.end() || claim.chunk_index >= found->second.chunks.size()) return nullptr;
  return &found->second;
}

void ContributionBook::MarkClaim(const TakenClaim& claim, Chunk chunk) {
  Pending* pending = FindPending(claim);
  if (pending == nullptr) return;
  Chunk& known = pending->chunks[claim.chunk_index];
  // An audit that finds it computed rightly does not say which bytes crossed the edge.
  if (known == Chunk::kDisputed && chunk != Chunk::kLied) return;
  known = chunk;
}

void ContributionBook::DropDisputesWith(NodeId liar) {
  for (auto& [id, node] : nodes_) {
    for (auto& [key, pending] : node.open) {
      for (const auto& [chunk, peer] : pending.disputes) {
        if (peer != liar || pending.chunks[chunk] != Chunk::kDisputed) continue;
        pending.chunks[chunk] = Chunk::kNotPicked;
      }
    }
  }
}

void ContributionBook::Apply(NodeId id, TrustEvent event, Consequences& consequences) {
  event.unix_seconds = absl::ToUnixSeconds(parts_.clock.WallNow());
  Node& node = nodes_[id];
  Follow(id, ApplyTrustEvent(rules_, node.trust, event), consequences);
}

void ContributionBook::Follow(NodeId id, const TrustChange& change, Consequences& consequences) {
  Node& node = nodes_[id];
  const bool worked = MayWork(node.trust);
  node.trust = change.record;
  node.changed = true;
  if (!change.transition) return;
  const TrustTransition& transition = *change.transition;
  spdlog::warn("{} is {} now, after {}: {}", NodeName(id),
               std::string(TrustStateName(transition.to)),
               std::string(TrustStateName(transition.from)), Printable(transition.reason, 300));
  Book(TrustEntry(id, node, &transition));
  node.written = parts_.clock.Now();
  node.changed = false;
  if (transition.to == TrustState::kEvicted) DropDisputesWith(id);
  const bool works = MayWork(node.trust);
  if (worked && !works) consequences.barred.emplace_back(id, transition.reason);
  if (!worked && works) consequences.readmitted.push_back(id);
}

void ContributionBook::Act(const Consequences& consequences) {
  for (const auto& [node, why] : consequences.barred) parts_.bar(node, why);
  for (const NodeId node : consequences.readmitted) parts_.readmit(node);
}

Entry ContributionBook::TrustEntry(NodeId id, const Node& node, const TrustTransition* transition) {
  Entry entry{.key = absl::StrCat("trust:", NodeName(id), ":", ++serial_),
              .kind = EntryKind::kTrust};
  entry.about = NodeName(id);
  nlohmann::json memo = {{"trust", TrustToJson(node.trust)}};
  if (transition != nullptr) {
    memo["from"] = std::string(TrustStateName(transition->from));
    memo["to"] = std::string(TrustStateName(transition->to));
    memo["reason"] = transition->reason;
    memo["evidence"] = transition->evidence;
  }
  entry.memo = memo.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return entry;
}

void ContributionBook::Book(Entry entry) {
  if (entry.time_micros == 0) entry.time_micros = absl::ToUnixMicros(parts_.clock.WallNow());
  unwritten_.push_back(std::move(entry));
}

uint64_t ContributionBook::AuditRatePpm(NodeId id) const {
  absl::MutexLock lock(&mu_);
  const auto found = nodes_.find(id);
  return efedllm::AuditRatePpm(rules_, found == nodes_.end() ? TrustRecord() : found->second.trust);
}

double ContributionBook::RoutingShare(NodeId id) const {
  constexpr double kSteps = 4;
  absl::MutexLock lock(&mu_);
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return 1;
  const double share = efedllm::RoutingShare(rules_, found->second.trust);
  const double whole = efedllm::RoutingShare(rules_, TrustRecord());
  return std::clamp(std::round(kSteps * share / whole), 1.0, kSteps) / kSteps;
}

absl::Status ContributionBook::Pardon(NodeId id) {
  Consequences consequences;
  {
    absl::MutexLock lock(&mu_);
    const auto found = nodes_.find(id);
    if (found == nodes_.end()) {
      return absl::NotFoundError(absl::StrCat("nothing is known of a node ", NodeName(id)));
    }
    RETURN_IF_ERROR(MayBePardoned(found->second.trust));
    Apply(id, {.kind = TrustEventKind::kPardon}, consequences);
  }
  Act(consequences);
  return absl::OkStatus();
}

std::vector<NodeStanding> ContributionBook::Standings() const {
  absl::MutexLock lock(&mu_);
  std::vector<NodeStanding> standings;
  standings.reserve(nodes_.size());
  const int64_t now = absl::ToUnixSeconds(parts_.clock.WallNow());
  for (const auto& [id, node] : nodes_) {
    NodeStanding& standing = standings.emplace_back();
    standing.node = id;
    standing.trust = AgeTrust(rules_, node.trust, now).record;
    standing.honesty_bound = HonestyBound(rules_, standing.trust);
    standing.audit_rate_ppm = efedllm::AuditRatePpm(rules_, standing.trust);
    standing.pending_receipts = node.open.size();
    for (const auto& [key, pending] : node.open) standing.pending_pay += pending.work.amount;
  }
  return standings;
}

}  // namespace efedllm
