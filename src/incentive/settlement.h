// Whom nodes belong to, and how what they have becomes their owners'.
#ifndef EFEDLLM_INCENTIVE_SETTLEMENT_H_
#define EFEDLLM_INCENTIVE_SETTLEMENT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "incentive/ledger_entry.h"

namespace efedllm {

// Days since 1970-01-01, UTC.
int64_t DayOf(absl::Time time);

// amount: > 0, at most kMaxPosting. One per node and day: its key says so.
Entry SettlementEntry(NodeId node, absl::string_view owner, Micros amount, int64_t time_micros);

struct OwnerBinding {
  NodeId node;
  std::string owner;
};
// The inverse of OwnerEntry. nullopt: the entry is none.
std::optional<OwnerBinding> OwnerBindingOf(const Entry& entry);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_SETTLEMENT_H_
