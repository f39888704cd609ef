#include "coordinator/admin_service.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "coordinator/chrome_trace.h"
#include "coordinator/cluster_metrics.h"
#include "coordinator/failover_figures.h"
#include "coordinator/node_status.h"
#include "coordinator/plan_explanation.h"
#include "net/credentials.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

constexpr size_t kMaxListedTokens = 1000;  // the youngest: a reply stays far below gRPC's limit

void FillToken(const JoinTokenInfo& info, absl::Time now, v1::Token& token) {
  token.set_id(info.id);
  token.set_created_unix(absl::ToUnixSeconds(info.created));
  token.set_expires_unix(
      info.expires == absl::InfiniteFuture() ? 0 : absl::ToUnixSeconds(info.expires));
  token.set_uses(info.uses);
  token.set_used(info.used);
  token.set_state(std::string(JoinTokenStateName(info.StateAt(now))));
  token.set_owner(info.owner);
}

template <class Reply>
void FillChange(const NodeDrains::Change& change, Reply& reply) {
  reply.set_node(change.node.node.v);
  reply.set_name(change.node.name);
  reply.set_changed(change.changed);
}

void FillFailovers(const FailoverFigures& figures, v1::Failovers& failovers) {
  failovers.set_count(figures.count);
  failovers.set_mean_pause_seconds(figures.mean_pause_seconds);
  failovers.set_kept_tokens(figures.kept_tokens);
  failovers.set_replayed_by_stages_tokens(figures.replayed_by_stages_tokens);
  failovers.set_replayed_from_tokens(figures.replayed_from_tokens);
}

// Fills the reply, or fails.
grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::GetStatus(grpc::CallbackServerContext* context,
                                                  const v1::StatusRequest*,
                                                  v1::StatusReply* reply) {
  const ClusterStatus cluster = keeper_.Status();
  const SchedulerStats stats = scheduler_.Stats();
  reply->set_model(facts_.model);
  reply->set_layers(facts_.layers);
  reply->set_codec(facts_.codec);
  reply->set_epoch(cluster.epoch.v);
  reply->set_state(cluster.state);
  reply->set_reason(cluster.reason);
  FillNodes(cluster, *reply);
  for (const StageBusy& stage : meters_.Busy(clock_.Now())) {
    for (v1::NodeStatus& node : *reply->mutable_nodes()) {
      if (node.node() == stage.node.v) node.set_busy(stage.share);
    }
  }
  for (const HopTraffic& hop : meters_.Traffic()) {
    for (v1::NodeStatus& node : *reply->mutable_nodes()) {
      if (node.node() != hop.from.v || hop.rows == 0) continue;
      node.set_codec(CodecLabel(hop.codec));
      node.set_activation_bytes_per_token(static_cast<double>(hop.bytes) /
                                          static_cast<double>(hop.rows));
    }
  }
  reply->set_tokens_per_second(stats.generated_tokens_per_second);
  reply->set_requests_running(stats.running);
  reply->set_requests_queued(stats.queued);
  reply->set_kv_tokens_used(stats.kv_tokens_held);
  reply->set_kv_tokens_total(stats.kv_tokens_total);
  reply->set_kv_tokens_cached(stats.kv_tokens_cached);
  FillFailovers(FailoversIn(registry_.Collect()), *reply->mutable_failovers());
  FillIncentive(incentive_, *reply);
  reply->set_uptime_seconds(absl::ToDoubleSeconds(clock_.Now() - started_));
  return Finish(context, absl::OkStatus());
}

void AdminService::FillNodes(const ClusterStatus& cluster, v1::StatusReply& reply) const {
  std::map<NodeId, absl::Time> drained = drains_.List();
  for (const Member& member : cluster.members) {
    const auto found = drained.find(member.node);
    std::optional<absl::Time> since;
    if (found != drained.end()) since = found->second;
    FillNodeStatus(member, since, cluster.now, *reply.add_nodes());
    drained.erase(member.node);
  }
  for (const auto& [node, since] : drained) FillAbsentNode(node, since, *reply.add_nodes());
}

grpc::ServerUnaryReactor* AdminService::CreateToken(grpc::CallbackServerContext* context,
                                                    const v1::CreateTokenRequest* request,
                                                    v1::Token* reply) {
  constexpr uint64_t kMostSeconds = std::numeric_limits<int32_t>::max();
  const uint64_t ttl = std::min(request->ttl_seconds(), kMostSeconds);
  const absl::StatusOr<JoinTokens::Created> created =
      tokens_.Create(absl::Seconds(static_cast<int64_t>(ttl)), request->uses(), request->owner());
  if (created.ok()) {
    FillToken(created->info, clock_.WallNow(), *reply);
    reply->set_token(created->text);
  }
  return Finish(context, created.status());
}

grpc::ServerUnaryReactor* AdminService::ListTokens(grpc::CallbackServerContext* context,
                                                   const v1::ListTokensRequest*,
                                                   v1::ListTokensReply* reply) {
  const absl::StatusOr<std::vector<JoinTokenInfo>> tokens = tokens_.List();
  if (tokens.ok()) {
    const size_t skipped = tokens->size() - std::min(tokens->size(), kMaxListedTokens);
    for (size_t i = skipped; i < tokens->size(); ++i) {
      FillToken((*tokens)[i], clock_.WallNow(), *reply->add_tokens());
    }
  }
  return Finish(context, tokens.status());
}

grpc::ServerUnaryReactor* AdminService::RevokeToken(grpc::CallbackServerContext* context,
                                                    const v1::RevokeTokenRequest* request,
                                                    v1::RevokeTokenReply* reply) {
  const absl::StatusOr<JoinTokenInfo> token = tokens_.Revoke(request->id());
  if (token.ok()) FillToken(*token, clock_.WallNow(), *reply->mutable_token());
  return Finish(context, token.status());
}

grpc::ServerUnaryReactor* AdminService::ExplainPlan(grpc::CallbackServerContext* context,
                                                    const v1::ExplainPlanRequest*,
                                                    v1::ExplainPlanReply* reply) {
  reply->set_model(facts_.model);
  FillExplanation(keeper_.Explain(), *reply);
  return Finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::GetTrace(grpc::CallbackServerContext* context,
                                                 const v1::TraceRequest* request,
                                                 v1::TraceReply* reply) {
  const absl::StatusOr<RequestTrace> trace = traces_.Find(request->request());
  if (trace.ok()) {
    reply->set_chrome_json(ChromeTrace(*trace, TracedNodes(keeper_.Status())));
  }
  return Finish(context, trace.status());
}

grpc::ServerUnaryReactor* AdminService::DrainNode(grpc::CallbackServerContext* context,
                                                  const v1::DrainNodeRequest* request,
                                                  v1::DrainNodeReply* reply) {
  const absl::StatusOr<NodeDrains::Change> change = drains_.Drain(request->node());
  if (change.ok()) FillChange(*change, *reply);
  return Finish(context, change.status());
}

grpc::ServerUnaryReactor* AdminService::UndrainNode(grpc::CallbackServerContext* context,
                                                    const v1::UndrainNodeRequest* request,
                                                    v1::UndrainNodeReply* reply) {
  const absl::StatusOr<NodeDrains::Change> change = drains_.Undrain(request->node());
  if (change.ok()) FillChange(*change, *reply);
  return Finish(context, change.status());
}

// What it did not show is audited again before it may come back.
absl::Status AdminService::AppealOf(NodeId node, v1::PardonNodeReply& reply) {
  for (const NodeStanding& standing : incentive_.book->Standings()) {
    if (standing.node == node) RETURN_IF_ERROR(MayBePardoned(standing.trust));
  }
  if (incentive_.audits == nullptr) return absl::OkStatus();
  const AuditAppeal appeal = incentive_.audits->Reaudit(node);
  reply.set_audited_again(static_cast<uint32_t>(appeal.chunks));
  reply.set_waiting(static_cast<uint32_t>(appeal.waiting));
  if (appeal.waiting > 0 || appeal.unproven == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "of ", appeal.chunks, " chunks that it had not shown and that were audited again, ",
      appeal.unproven,
      " are not proven: it has to be attached, with its state folder as it was, and show them"));
}

absl::Status AdminService::Pardon(const std::string& wanted, v1::PardonNodeReply& reply) {
  if (incentive_.book == nullptr) {
    return absl::FailedPreconditionError(
        "this coordinator keeps no ledger and judges nobody: there is nothing to pardon");
  }
  absl::StatusOr<KnownNode> node = drains_.Find(wanted);
  const std::optional<NodeId> id = ParseNodeName(wanted);
  if (absl::IsNotFound(node.status()) && id) node = KnownNode{*id, "", false};
  RETURN_IF_ERROR(node.status());
  reply.set_node(node->node.v);
  reply.set_name(node->name);
  RETURN_IF_ERROR(AppealOf(node->node, reply));
  if (reply.waiting() > 0) return absl::OkStatus();
  RETURN_IF_ERROR(incentive_.book->Pardon(node->node));
  for (const NodeStanding& standing : incentive_.book->Standings()) {
    if (standing.node == node->node) FillTrust(standing, *reply.mutable_trust());
  }
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* AdminService::PardonNode(grpc::CallbackServerContext* context,
                                                   const v1::PardonNodeRequest* request,
                                                   v1::PardonNodeReply* reply) {
  return Finish(context, Pardon(request->node(), *reply));
}

std::string AdminSocket(const std::string& state_dir) { return state_dir + "/admin.sock"; }

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(const std::string& state_dir,
                                                                AdminService& service) {
  const std::string path = AdminSocket(state_dir);
  if (path.size() >= sizeof(sockaddr_un{}.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the path of the admin socket, ", path, ", is longer than ",
                     sizeof(sockaddr_un{}.sun_path) - 1, " bytes; choose a shorter --state-dir"));
  }
  // Of a coordinator that was killed: ours is the state dir now (see StateDirLock).
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus(errno, "remove", path);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    return absl::InternalError(absl::StrCat("cannot listen on ", path));
  }
  if (chmod(path.c_str(), 0600) != 0) return ErrnoStatus(errno, "chmod", path);
  return std::unique_ptr<AdminServer>(new AdminServer(path, std::move(server)));
}

AdminServer::~AdminServer() {
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  unlink(path_.c_str());
}

}  // namespace efedllm
