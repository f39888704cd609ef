// What efedllm-ctl asks, over a socket in the state dir that only its owner can open.
#ifndef EFEDLLM_COORDINATOR_ADMIN_SERVICE_H_
#define EFEDLLM_COORDINATOR_ADMIN_SERVICE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "coordinator/epoch_keeper.h"
#include "coordinator/incentive_status.h"
#include "coordinator/join_tokens.h"
#include "coordinator/node_drains.h"
#include "coordinator/scheduler.h"
#include "coordinator/stage_meters.h"
#include "coordinator/trace_store.h"
#include "prometheus/registry.h"
#include "wire/admin_service.h"

namespace efedllm {

// Constant facts for the status page.
struct ServedFacts {
  std::string model;
  uint32_t layers = 0;
  std::string codec;
};

// Thread-safe. Everything is borrowed and outlives the AdminServer.
class AdminService final : public v1::Admin::CallbackService {
 public:
  AdminService(const Clock& clock, EpochKeeper& keeper, const Scheduler& scheduler,
               JoinTokens& tokens, NodeDrains& drains, const TraceStore& traces,
               const StageMeters& meters, const prometheus::Registry& registry,
               const ServedFacts& facts, const IncentiveParts& incentive = {})
      : clock_(clock),
        keeper_(keeper),
        scheduler_(scheduler),
        tokens_(tokens),
        drains_(drains),
        traces_(traces),
        meters_(meters),
        registry_(registry),
        facts_(facts),
        incentive_(incentive),
        started_(clock.Now()) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::StatusRequest* request,
                                      v1::StatusReply* reply) override;
  grpc::ServerUnaryReactor* CreateToken(grpc::CallbackServerContext* context,
                                        const v1::CreateTokenRequest* request,
                                        v1::Token* reply) override;
  grpc::ServerUnaryReactor* ListTokens(grpc::CallbackServerContext* context,
                                       const v1::ListTokensRequest* request,
                                       v1::ListTokensReply* reply) override;
  grpc::ServerUnaryReactor* RevokeToken(grpc::CallbackServerContext* context,
                                        const v1::RevokeTokenRequest* request,
                                        v1::RevokeTokenReply* reply) override;
  grpc::ServerUnaryReactor* ExplainPlan(grpc::CallbackServerContext* context,
                                        const v1::ExplainPlanRequest* request,
                                        v1::ExplainPlanReply* reply) override;
  grpc::ServerUnaryReactor* GetTrace(grpc::CallbackServerContext* context,
                                     const v1::TraceRequest* request,
                                     v1::TraceReply* reply) override;
  grpc::ServerUnaryReactor* DrainNode(grpc::CallbackServerContext* context,
                                      const v1::DrainNodeRequest* request,
                                      v1::DrainNodeReply* reply) override;
  grpc::ServerUnaryReactor* UndrainNode(grpc::CallbackServerContext* context,
                                        const v1::UndrainNodeRequest* request,
                                        v1::UndrainNodeReply* reply) override;
  grpc::ServerUnaryReactor* PardonNode(grpc::CallbackServerContext* context,
                                       const v1::PardonNodeRequest* request,
                                       v1::PardonNodeReply* reply) override;

 private:
  void FillNodes(const ClusterStatus& cluster, v1::StatusReply& reply) const;
  absl::Status AppealOf(NodeId node, v1::PardonNodeReply& reply);
  absl::Status Pardon(const std::string& wanted, v1::PardonNodeReply& reply);

  const Clock& clock_;
  EpochKeeper& keeper_;
  const Scheduler& scheduler_;
  JoinTokens& tokens_;
  NodeDrains& drains_;
  const TraceStore& traces_;
  const StageMeters& meters_;
  const prometheus::Registry& registry_;
  const ServedFacts facts_;
  const IncentiveParts incentive_;
  const absl::Time started_;
};

// <state_dir>/admin.sock.
std::string AdminSocket(const std::string& state_dir);

// Serves it (0600) until destroyed. InvalidArgument: the path is too long for a socket.
class AdminServer {
 public:
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(const std::string& state_dir,
                                                            AdminService& service);
  ~AdminServer();

 private:
  AdminServer(std::string path, std::unique_ptr<grpc::Server> server)
      : path_(std::move(path)), server_(std::move(server)) {}

  const std::string path_;
  const std::unique_ptr<grpc::Server> server_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_ADMIN_SERVICE_H_
