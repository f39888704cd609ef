#include "incentive/settlement.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace efedllm {

int64_t DayOf(absl::Time time) {
  absl::Duration rest;
  return absl::IDivDuration(time - absl::UnixEpoch(), absl::Hours(24), &rest);
}

Entry SettlementEntry(NodeId node, absl::string_view owner, Micros amount, int64_t time_micros) {
  Entry entry{.key = absl::StrCat("settlement:", NodeName(node), ":",
                                  DayOf(absl::FromUnixMicros(time_micros))),
              .kind = EntryKind::kSettlement,
              .time_micros = time_micros};
  entry.postings = {{NodeAccount(node), -amount}, {OwnerAccount(owner), amount}};
  return entry;
}

std::optional<OwnerBinding> OwnerBindingOf(const Entry& entry) {
  if (entry.kind != EntryKind::kOwner) return std::nullopt;
  std::optional<NodeId> node;
  std::optional<std::string> owner;
  for (const Posting& posting : entry.postings) {
    absl::string_view name = posting.account;
    if (absl::ConsumePrefix(&name, "node:"))
      node = ParseNodeName(name);
    else if (absl::ConsumePrefix(&name, "owner:"))
      owner = std::string(name);
  }
  if (!node || !owner) return std::nullopt;
  return OwnerBinding{*node, *std::move(owner)};
}

}  // namespace efedllm
