#include "common/ids.h"

#include "absl/strings/str_format.h"

namespace efedllm {

std::string NodeName(NodeId id) { return absl::StrFormat("%016x", id.v); }

std::optional<NodeId> ParseNodeName(absl::string_view name) {
  if (name.size() != 16) return std::nullopt;
  NodeId id;
  for (char c : name) {
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(c >= 'a' && c <= 'f')) return std::nullopt;
    id.v = id.v << 4 | static_cast<uint64_t>(digit ? c - '0' : c - 'a' + 10);
  }
  return id;
}

}  // namespace efedllm
