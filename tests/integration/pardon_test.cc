// A node that was put into quarantine, and its appeal, by the admin socket.
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "coordinator/admin_service.h"
#include "integration/cluster_world.h"
#include "wire/admin_service.h"

namespace efedllm {
namespace {

class Appeal : public testing::Test {
 protected:
  Appeal()
      : admin_(v1::Admin::NewStub(
            grpc::CreateChannel("unix:" + AdminSocket(world_.dir() + "/coordinator"),
                                grpc::InsecureChannelCredentials()))) {}

  v1::NodeStatus Status() {
    grpc::ClientContext context;
    v1::StatusReply reply;
    EXPECT_TRUE(admin_->GetStatus(&context, {}, &reply).ok());
    EXPECT_TRUE(reply.has_ledger() && reply.has_audits());
    return reply.nodes_size() == 1 ? reply.nodes(0) : v1::NodeStatus();
  }
  grpc::Status Pardon(v1::PardonNodeReply& reply) {
    v1::PardonNodeRequest request;
    request.set_node("worker-0");
    const absl::Time until = absl::Now() + absl::Seconds(60);
    grpc::Status status;
    do {
      grpc::ClientContext context;
      reply.Clear();
      status = admin_->PardonNode(&context, request, &reply);
    } while (status.ok() && reply.waiting() > 0 && absl::Now() < until);
    return status;
  }

  ClusterWorld world_{kSeedlingPath, 1};
  std::unique_ptr<v1::Admin::Stub> admin_;
};

TEST_F(Appeal, ANodeInQuarantineComesBackOnProbation) {
  const NodeId node = world_.Join().node();
  ASSERT_TRUE(world_.AwaitServing(1));
  v1::PardonNodeReply reply;
  EXPECT_FALSE(Pardon(reply).ok());  // there is nothing against it
  ContributionBook& book = world_.coordinator().incentives()->book();
  RefusedReceipt refused{.receipt = {}, .why = ReceiptRefusal::kNumber, .detail = ""};
  refused.receipt.receipt.node = node;
  for (int i = 0; i < 3; ++i) book.OnRefused(refused);
  ASSERT_TRUE(world_.AwaitStatus([](const ClusterStatus& status) {
    return std::any_of(status.members.begin(), status.members.end(),
                       [](const Member& member) { return !member.barred.empty(); });
  }));
  EXPECT_EQ(Status().trust().state(), "quarantined");
  EXPECT_EQ(Status().state(), "barred");
  const grpc::Status pardoned = Pardon(reply);
  ASSERT_TRUE(pardoned.ok()) << pardoned.error_message();
  EXPECT_EQ(reply.trust().state(), "probation");
  EXPECT_EQ(reply.trust().audit_rate(), 1);
  EXPECT_EQ(Status().trust().pardons(), 1u);
  EXPECT_TRUE(world_.AwaitServing(1));
  EXPECT_EQ(Pardon(reply).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace efedllm
