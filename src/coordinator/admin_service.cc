#include "coordinator/admin_service.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "coordinator/chrome_trace.h"
#include "coordinator/cluster_metrics.h"
#include "coordinator/plan_explanation.h"
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
}

double Per(uint64_t sum, uint64_t count) {
  return count == 0 ? 0 : static_cast<double>(sum) / static_cast<double>(count);
}

void FillNode(const Member& member, absl::Time now, v1::NodeStatus& node) {
  node.set_node(member.node.v);
  node.set_name(member.hello.name);
  node.set_address(member.hello.hop_address);
  node.set_state(std::string(MemberStateName(member.state)));
  node.set_first_layer(member.layers.first);
  node.set_last_layer(member.layers.last);
  node.set_threads(member.hello.profile.threads);
  node.set_memory_bytes(member.hello.profile.memory_bytes);
  node.set_read_bytes_per_second(member.hello.profile.read_bytes_per_second);
  node.set_int8_ops_per_second(member.hello.profile.int8_ops_per_second);
  node.set_f32_flops_per_second(member.hello.profile.f32_flops_per_second);
  node.set_bytes_held(member.report.bytes_held);
  node.set_bytes_total(member.report.bytes_total);
  node.set_bytes_fetched(member.bytes_fetched);
  node.set_steps(member.steps);
  node.set_tokens(member.tokens);
  node.set_compute_millis_per_step(Per(member.counters.compute_micros, member.counters.steps) /
                                   1000);
  node.set_bytes_out_per_step(Per(member.counters.bytes_out, member.counters.steps));
  node.set_kv_tokens_used(member.counters.kv_tokens_used);
  node.set_heartbeat_age_seconds(absl::ToDoubleSeconds(now - member.last_heard));
  node.set_work_gflop(member.work_flop / 1e9);
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
  for (const Member& member : cluster.members) FillNode(member, cluster.now, *reply->add_nodes());
  for (const StageBusy& stage : meters_.Busy(clock_.Now())) {
    for (v1::NodeStatus& node : *reply->mutable_nodes()) {
      if (node.node() == stage.node.v) node.set_busy(stage.share);
    }
  }
  reply->set_tokens_per_second(stats.generated_tokens_per_second);
  reply->set_requests_running(stats.running);
  reply->set_requests_queued(stats.queued);
  reply->set_kv_tokens_used(stats.kv_tokens_held);
  reply->set_kv_tokens_total(stats.kv_tokens_total);
  reply->set_kv_tokens_cached(stats.kv_tokens_cached);
  reply->set_uptime_seconds(absl::ToDoubleSeconds(clock_.Now() - started_));
  return Finish(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::CreateToken(grpc::CallbackServerContext* context,
                                                    const v1::CreateTokenRequest* request,
                                                    v1::Token* reply) {
  constexpr uint64_t kMostSeconds = std::numeric_limits<int32_t>::max();
  const uint64_t ttl = std::min(request->ttl_seconds(), kMostSeconds);
  const absl::StatusOr<JoinTokens::Created> created =
      tokens_.Create(absl::Seconds(static_cast<int64_t>(ttl)), request->uses());
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

std::string AdminSocket(const std::string& state_dir) { return state_dir + "/admin.sock"; }

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(const std::string& state_dir,
                                                                AdminService& service) {
  const std::string path = AdminSocket(state_dir);
  if (path.size() >= sizeof(sockaddr_un{}.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the path of the admin socket, ", path, ", is longer than ",
                     sizeof(sockaddr_un{}.sun_path) - 1, " bytes; choose a shorter --state-dir"));
  }
  // Of a coordinator that was killed: ours is the state dir now (see LockStateDir).
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
