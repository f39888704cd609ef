// Identities are types, so that a sequence can't be passed where a node is meant.
#ifndef EFEDLLM_COMMON_IDS_H_
#define EFEDLLM_COMMON_IDS_H_

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace efedllm {

template <class Tag>
struct Id {
  uint64_t v = 0;

  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes the 0 of a <=> b < 0 for a pointer.
  friend auto operator<=>(const Id&, const Id&) = default;
  template <class H>
  friend H AbslHashValue(H h, const Id& id) {
    return H::combine(std::move(h), id.v);
  }
};

// A node is its key: the first eight bytes of the SHA-256 of its public key (DER), big-endian.
using NodeId = Id<struct NodeTag>;
// Plans are numbered; every message carries the number. 0: no plan yet.
using Epoch = Id<struct EpochTag>;
// One request's token stream. Never used again by the same coordinator process.
using SequenceId = Id<struct SequenceTag>;
// One micro-batch of work. Counts up within an epoch.
using StepId = Id<struct StepTag>;

// 16 lower-case hex digits, as logs, certificates and `efedllm-ctl status` show a node.
std::string NodeName(NodeId id);
// The inverse. nullopt: not 16 hex digits.
std::optional<NodeId> ParseNodeName(absl::string_view name);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_IDS_H_
