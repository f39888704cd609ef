// What there is of the incentive, for those who tell people of it: trust, audits, the ledger.
#ifndef EFEDLLM_COORDINATOR_INCENTIVE_STATUS_H_
#define EFEDLLM_COORDINATOR_INCENTIVE_STATUS_H_

#include "coordinator/audit_runner.h"
#include "coordinator/contribution_book.h"
#include "coordinator/ledger_head_publisher.h"
#include "incentive/ledger.h"
#include "wire/admin_service.h"

namespace efedllm {

// All borrowed; null: there is none.
struct IncentiveParts {
  ContributionBook* book = nullptr;
  AuditRunner* audits = nullptr;
  Ledger* ledger = nullptr;
  const LedgerHeadPublisher* heads = nullptr;
};

void FillTrust(const NodeStanding& standing, v1::NodeTrust& trust);

// Trust of the nodes in the reply, and of those that are away but barred or owed something;
// counters of audits; figures of the ledger.
void FillIncentive(const IncentiveParts& parts, v1::StatusReply& reply);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_INCENTIVE_STATUS_H_
