// The DNS name in a node's certificate. For this folder.
#ifndef EFEDLLM_NET_NODE_DNS_NAME_H_
#define EFEDLLM_NET_NODE_DNS_NAME_H_

#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"

namespace efedllm {

inline constexpr char kCoordinatorDnsName[] = "coordinator.efedllm";
inline constexpr char kNodeDnsSuffix[] = ".node.efedllm";

inline std::string NodeDnsName(NodeId node) {
  return node == NodeId{0} ? kCoordinatorDnsName : absl::StrCat(NodeName(node), kNodeDnsSuffix);
}

// The inverse. nullopt: not one of ours.
inline std::optional<NodeId> ParseNodeDnsName(absl::string_view name) {
  if (name == kCoordinatorDnsName) return NodeId{0};
  if (!absl::EndsWith(name, kNodeDnsSuffix)) return std::nullopt;
  return ParseNodeName(name.substr(0, name.size() - sizeof(kNodeDnsSuffix) + 1));
}

}  // namespace efedllm

#endif  // EFEDLLM_NET_NODE_DNS_NAME_H_
