#include "coordinator/incentive_status.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "coordinator/membership.h"

namespace efedllm {
namespace {

bool Matters(const NodeStanding& standing) {
  return !MayWork(standing.trust) || standing.pending_receipts > 0;
}

void FillNodes(const ContributionBook& book, v1::StatusReply& reply) {
  std::map<uint64_t, v1::NodeStatus*> listed;
  for (v1::NodeStatus& node : *reply.mutable_nodes()) listed[node.node()] = &node;
  for (const NodeStanding& standing : book.Standings()) {
    const auto found = listed.find(standing.node.v);
    if (found != listed.end()) {
      FillTrust(standing, *found->second->mutable_trust());
    } else if (Matters(standing)) {
      v1::NodeStatus& node = *reply.add_nodes();
      node.set_node(standing.node.v);
      node.set_state(std::string(MemberStateName(MemberState::kGone)));
      FillTrust(standing, *node.mutable_trust());
    }
  }
}

void FillAudits(const AuditCounters& counters, v1::Audits& audits) {
  audits.set_claimed(counters.claims);
  audits.set_picked(counters.picked);
  audits.set_honest(counters.honest);
  audits.set_lied(counters.lied);
  audits.set_withheld(counters.withheld);
  audits.set_undecidable(counters.undecidable);
  audits.set_away(counters.away);
  audits.set_dropped(counters.dropped);
  audits.set_waiting(counters.waiting);
}

}  // namespace

void FillTrust(const NodeStanding& standing, v1::NodeTrust& trust) {
  trust.set_state(std::string(TrustStateName(standing.trust.state)));
  trust.set_honesty_bound(standing.honesty_bound);
  trust.set_audit_rate(static_cast<double>(standing.audit_rate_ppm) / kWhole);
  trust.set_clean_chunks(standing.trust.clean_chunks);
  trust.set_lies(standing.trust.lies);
  trust.set_pending_receipts(standing.pending_receipts);
  trust.set_pending_micros(standing.pending_pay);
  trust.set_evidence(standing.trust.evidence);
  trust.set_pardons(standing.trust.pardons);
}

void FillIncentive(const IncentiveParts& parts, v1::StatusReply& reply) {
  if (parts.book != nullptr) FillNodes(*parts.book, reply);
  if (parts.audits != nullptr) FillAudits(parts.audits->counters(), *reply.mutable_audits());
  if (parts.ledger == nullptr) return;
  v1::LedgerFigures& figures = *reply.mutable_ledger();
  figures.set_entries(parts.ledger->reader().Size().value_or(0));
  const auto escrow = parts.ledger->reader().Balances("escrow:");
  for (const AccountBalance& account : escrow.value_or(std::vector<AccountBalance>())) {
    figures.set_escrow_micros(figures.escrow_micros() + account.balance);
  }
  if (parts.heads != nullptr) {
    const LedgerHeadPublisher::Figures heads = parts.heads->figures();
    figures.set_signed_entries(heads.entries);
    figures.set_head_holders(heads.holders);
    figures.set_head_refusers(heads.refusers);
  }
  if (parts.book != nullptr) {
    const absl::Status accepting = parts.book->accepting();
    if (!accepting.ok()) figures.set_refuses_work(std::string(accepting.message()));
  }
}

}  // namespace efedllm
