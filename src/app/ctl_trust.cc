#include "app/ctl_trust.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"
#include "common/ids.h"
#include "incentive/ledger_entry.h"

namespace efedllm {

nlohmann::json TrustJson(const v1::NodeTrust& trust) {
  return {{"state", trust.state()},
          {"honesty_bound", trust.honesty_bound()},
          {"audit_rate", trust.audit_rate()},
          {"clean_chunks", trust.clean_chunks()},
          {"lies", trust.lies()},
          {"pardons", trust.pardons()},
          {"pending_receipts", trust.pending_receipts()},
          {"pending_micros", trust.pending_micros()},
          {"evidence", trust.evidence()}};
}

nlohmann::json AuditsJson(const v1::Audits& audits) {
  return {{"claimed", audits.claimed()},   {"picked", audits.picked()},
          {"honest", audits.honest()},     {"lied", audits.lied()},
          {"withheld", audits.withheld()}, {"undecidable", audits.undecidable()},
          {"away", audits.away()},         {"dropped", audits.dropped()},
          {"waiting", audits.waiting()}};
}

nlohmann::json LedgerJson(const v1::LedgerFigures& ledger) {
  return {{"entries", ledger.entries()},
          {"signed_entries", ledger.signed_entries()},
          {"escrow_micros", ledger.escrow_micros()},
          {"head_holders", ledger.head_holders()},
          {"head_refusers", ledger.head_refusers()},
          {"refuses_work", ledger.refuses_work()}};
}

void PrintIncentive(const v1::StatusReply& status) {
  if (status.has_audits()) {
    const v1::Audits& audits = status.audits();
    absl::PrintF(
        "audits: %d of %d chunks picked: %d honest, %d lied, %d withheld, %d undecidable, "
        "%d away, %d dropped, %d waiting\n",
        audits.picked(), audits.claimed(), audits.honest(), audits.lied(), audits.withheld(),
        audits.undecidable(), audits.away(), audits.dropped(), audits.waiting());
  }
  if (status.has_ledger()) {
    const v1::LedgerFigures& ledger = status.ledger();
    absl::PrintF(
        "ledger: %d entries, %d under a signed head that %d workers keep; %s credits "
        "pending\n",
        ledger.entries(), ledger.signed_entries(), ledger.head_holders(),
        FormatCredits(ledger.escrow_micros()));
    if (ledger.head_refusers() > 0) {
      absl::PrintF(
          "  %d workers keep heads of another history: see the log, and `efedllm-ctl "
          "ledger verify --help`\n",
          ledger.head_refusers());
    }
    if (!ledger.refuses_work().empty()) {
      absl::PrintF("  no work is taken: %s\n", ledger.refuses_work());
    }
  }
  const bool judged = std::any_of(status.nodes().begin(), status.nodes().end(),
                                  [](const v1::NodeStatus& node) { return node.has_trust(); });
  if (!judged) return;
  absl::PrintF("\n%-16s  %-16s  %-16s  %-11s  %7s  %7s  %8s  %5s  %14s\n", "NODE", "NAME", "OWNER",
               "TRUST", "HONESTY", "AUDITED", "CLEAN", "LIES", "PENDING PAY");
  for (const v1::NodeStatus& node : status.nodes()) {
    if (!node.has_trust()) continue;
    const v1::NodeTrust& trust = node.trust();
    absl::PrintF("%-16s  %-16.16s  %-16.16s  %-11s  %7.4f  %6.1f%%  %8.0f  %5d  %14s\n",
                 NodeName(NodeId{node.node()}), node.name(),
                 node.owner().empty() ? "-" : node.owner(), trust.state(), trust.honesty_bound(),
                 100 * trust.audit_rate(), trust.clean_chunks(), trust.lies(),
                 FormatCredits(trust.pending_micros()));
  }
}

}  // namespace efedllm
