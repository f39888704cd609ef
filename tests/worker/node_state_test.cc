#include "worker/node_state.h"

#include <gtest/gtest.h>

#include <fstream>

#include "net/net_world.h"

namespace efedllm {
namespace {

TEST(NodeState, KeepsTheKey) {
  const TemporaryFolder folder;
  const NodeId node = (*NodeState::Open(folder.path() + "/a/b"))->node();
  EXPECT_EQ((*NodeState::Open(folder.path() + "/a/b"))->node(), node);
}

TEST(NodeState, KeepsAnIdentityOfItsOwnKeyAlone) {
  const TemporaryFolder folder;
  const TestCa ca;
  const auto state = *NodeState::Open(folder.path());
  EXPECT_FALSE(state->LoadIdentity());
  const std::string other =
      ca.authority()
          .SignNode(*CertificateRequest(NewNodeKey()), absl::Now(), absl::Hours(1))
          ->certificate_der;
  EXPECT_FALSE(state->SaveIdentity(other, ca.authority().certificate_pem()).ok());
  EXPECT_FALSE(state->LoadIdentity());
  const std::string own =
      ca.authority()
          .SignNode(*CertificateRequest(state->key_pem()), absl::Now(), absl::Hours(1))
          ->certificate_der;
  ASSERT_TRUE(state->SaveIdentity(own, ca.authority().certificate_pem()).ok());
  const std::optional<Identity> identity = state->LoadIdentity();
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->node, state->node());
  EXPECT_EQ(identity->ca_fingerprint, ca.authority().fingerprint());
}

TEST(NodeState, ADamagedCertificateCountsAsNone) {
  const TemporaryFolder folder;
  const auto state = *NodeState::Open(folder.path());
  std::ofstream(folder.path() + "/node.crt") << "nonsense";
  std::ofstream(folder.path() + "/ca.crt") << "nonsense";
  EXPECT_FALSE(state->LoadIdentity());
}

TEST(NodeState, ADamagedKeyIsAnErrorThatSaysWhatToDo) {
  const TemporaryFolder folder;
  std::ofstream(folder.path() + "/node.key") << "nonsense";
  const auto state = NodeState::Open(folder.path());
  EXPECT_EQ(state.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace efedllm
