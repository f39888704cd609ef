#include "app/ctl_admin.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "app/coord_options.h"
#include "app/ctl_trust.h"
#include "app/daemon.h"
#include "common/file.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "coordinator/admin_service.h"
#include "wire/admin_service.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

struct AdminFlags {
  std::string state_dir;
  bool json = false;
  std::string ttl = "24h";
  uint64_t uses = 0;
  std::string owner;
  std::string id;
  std::string request;
  std::string output;
};

using Stub = v1::Admin::Stub;

absl::StatusOr<std::unique_ptr<Stub>> Connect(const AdminFlags& flags) {
  return ConnectToCoordinator(flags.state_dir);
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
}

nlohmann::json NodeJson(const v1::NodeStatus& node) {
  return {{"trust", node.has_trust() ? TrustJson(node.trust()) : nlohmann::json()},
          {"node", NodeName(NodeId{node.node()})},
          {"name", node.name()},
          {"address", node.address()},
          {"owner", node.owner()},
          {"state", node.state()},
          {"why", node.why()},
          {"first_layer", node.first_layer()},
          {"last_layer", node.last_layer()},
          {"threads", node.threads()},
          {"memory_bytes", node.memory_bytes()},
          {"read_bytes_per_second", node.read_bytes_per_second()},
          {"int8_ops_per_second", node.int8_ops_per_second()},
          {"f32_flops_per_second", node.f32_flops_per_second()},
          {"bytes_held", node.bytes_held()},
          {"bytes_total", node.bytes_total()},
          {"bytes_fetched", node.bytes_fetched()},
          {"steps", node.steps()},
          {"tokens", node.tokens()},
          {"compute_millis_per_step", node.compute_millis_per_step()},
          {"bytes_out_per_step", node.bytes_out_per_step()},
          {"codec", node.codec()},
          {"activation_bytes_per_token", node.activation_bytes_per_token()},
          {"kv_tokens_used", node.kv_tokens_used()},
          {"heartbeat_age_seconds", node.heartbeat_age_seconds()},
          {"work_gflop", node.work_gflop()},
          {"busy", node.busy()}};
}

nlohmann::json FailoversJson(const v1::Failovers& failovers) {
  return {{"count", failovers.count()},
          {"mean_pause_seconds", failovers.mean_pause_seconds()},
          {"kept_tokens", failovers.kept_tokens()},
          {"replayed_by_stages_tokens", failovers.replayed_by_stages_tokens()},
          {"replayed_from_tokens", failovers.replayed_from_tokens()}};
}

nlohmann::json StatusJson(const v1::StatusReply& status) {
  nlohmann::json nodes = nlohmann::json::array();
  for (const v1::NodeStatus& node : status.nodes()) nodes.push_back(NodeJson(node));
  return {{"model", status.model()},
          {"layers", status.layers()},
          {"epoch", status.epoch()},
          {"state", status.state()},
          {"reason", status.reason()},
          {"codec", status.codec()},
          {"tokens_per_second", status.tokens_per_second()},
          {"requests_running", status.requests_running()},
          {"requests_queued", status.requests_queued()},
          {"kv_tokens_used", status.kv_tokens_used()},
          {"kv_tokens_total", status.kv_tokens_total()},
          {"kv_tokens_cached", status.kv_tokens_cached()},
          {"uptime_seconds", status.uptime_seconds()},
          {"failovers", FailoversJson(status.failovers())},
          {"audits", status.has_audits() ? AuditsJson(status.audits()) : nlohmann::json()},
          {"ledger", status.has_ledger() ? LedgerJson(status.ledger()) : nlohmann::json()},
          {"nodes", nodes}};
}

// What a terminal shows of a name that a worker chose; the coordinator bounded it already.
void PrintNode(const v1::NodeStatus& node) {
  const bool staged = node.last_layer() > node.first_layer();
  const std::string layers =
      staged ? absl::StrCat("[", node.first_layer(), ",", node.last_layer(), ")") : "-";
  std::string state = node.state();
  if (state == "fetching" && node.bytes_total() > 0) {
    absl::StrAppend(&state, " ", node.bytes_held() * 100 / node.bytes_total(), "%");
  }
  absl::PrintF(
      "%-16.16s  %-16.16s  %-14.14s  %-9s %7d  %9s  %8d  %8.2f  %3.0f%%  %-12.12s  %7.0f  %6.1fs\n",
      NodeName(NodeId{node.node()}), node.name(), state, layers, node.threads(),
      FormatBytes(node.memory_bytes()), node.tokens(), node.compute_millis_per_step(),
      100 * node.busy(), node.codec().empty() ? "-" : node.codec(),
      node.activation_bytes_per_token(), node.heartbeat_age_seconds());
}

void PrintStatus(const v1::StatusReply& status) {
  absl::PrintF("%s: %s", status.model(), status.state());
  if (!status.reason().empty()) absl::PrintF(" (%s)", status.reason());
  absl::PrintF("\nepoch %d   layers %d   codec %s   up %s\n", status.epoch(), status.layers(),
               status.codec(),
               absl::FormatDuration(absl::Seconds(static_cast<int64_t>(status.uptime_seconds()))));
  absl::PrintF(
      "%.1f tokens/s   requests: %d running, %d queued   KV: %d used and %d cached of %d tokens\n",
      status.tokens_per_second(), status.requests_running(), status.requests_queued(),
      status.kv_tokens_used(), status.kv_tokens_cached(), status.kv_tokens_total());
  const v1::Failovers& failovers = status.failovers();
  if (failovers.count() > 0) {
    absl::PrintF("failovers: %d, %.2f s of pause each   their tokens: %d kept, %d computed again\n",
                 failovers.count(), failovers.mean_pause_seconds(), failovers.kept_tokens(),
                 failovers.replayed_by_stages_tokens() + failovers.replayed_from_tokens());
  }
  if (status.nodes().empty()) {
    PrintIncentive(status);
    absl::PrintF("\nno workers\n");
    return;
  }
  absl::PrintF("\n%-16s  %-16s  %-14s  %-9s %7s  %9s  %8s  %8s  %4s  %-12s  %7s  %7s\n", "NODE",
               "NAME", "STATE", "LAYERS", "THREADS", "MEMORY", "TOKENS", "MS/STEP", "BUSY", "CODEC",
               "B/TOKEN", "HEARD");
  for (const v1::NodeStatus& node : status.nodes()) PrintNode(node);
  for (const v1::NodeStatus& node : status.nodes()) {
    if (node.why().empty()) continue;
    const std::string id = NodeName(NodeId{node.node()});
    absl::PrintF("\n%s: %s\n", node.name().empty() ? id : node.name(), node.why());
  }
  absl::PrintF("\n");
  PrintIncentive(status);
}

absl::Status RunStatus(const AdminFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Stub> stub, Connect(flags));
  grpc::ClientContext context;
  SetDeadline(context);
  v1::StatusReply status;
  RETURN_IF_ERROR(FromGrpc(stub->GetStatus(&context, v1::StatusRequest(), &status)));
  if (flags.json) {
    std::printf("%s\n", StatusJson(status).dump(2).c_str());
  } else {
    PrintStatus(status);
  }
  return absl::OkStatus();
}

nlohmann::json TokenJson(const v1::Token& token) {
  nlohmann::json json = {{"id", token.id()},
                         {"created_unix", token.created_unix()},
                         {"expires_unix", token.expires_unix()},
                         {"uses", token.uses()},
                         {"used", token.used()},
                         {"state", token.state()},
                         {"owner", token.owner()}};
  if (!token.token().empty()) json["token"] = token.token();
  return json;
}

void PrintToken(const v1::Token& token) {
  const std::string expires =
      token.expires_unix() == 0
          ? "never"
          : absl::FormatTime("%Y-%m-%d %H:%M", absl::FromUnixSeconds(token.expires_unix()),
                             absl::LocalTimeZone());
  const std::string uses = token.uses() == 0 ? "any" : absl::StrCat(token.uses());
  absl::PrintF("%-8s  %-8s  %-16s  %6d of %-10s  %s\n", token.id(), token.state(), expires,
               token.used(), uses, token.owner().empty() ? "-" : token.owner());
}

absl::Status RunTokenCreate(const AdminFlags& flags) {
  absl::Duration ttl = absl::ZeroDuration();
  if (!absl::ParseDuration(flags.ttl, &ttl) || ttl < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--ttl: write 24h, 90m or 3600s; 0 means no end");
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Stub> stub, Connect(flags));
  grpc::ClientContext context;
  SetDeadline(context);
  v1::CreateTokenRequest request;
  // Less than a second must not come to mean "no end".
  request.set_ttl_seconds(
      static_cast<uint64_t>(absl::ToInt64Seconds(absl::Ceil(ttl, absl::Seconds(1)))));
  request.set_uses(flags.uses);
  request.set_owner(flags.owner);
  v1::Token token;
  RETURN_IF_ERROR(FromGrpc(stub->CreateToken(&context, request, &token)));
  std::printf("%s\n", flags.json ? TokenJson(token).dump(2).c_str() : token.token().c_str());
  return absl::OkStatus();
}

absl::Status RunTokenList(const AdminFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Stub> stub, Connect(flags));
  grpc::ClientContext context;
  SetDeadline(context);
  v1::ListTokensReply reply;
  RETURN_IF_ERROR(FromGrpc(stub->ListTokens(&context, v1::ListTokensRequest(), &reply)));
  if (flags.json) {
    nlohmann::json tokens = nlohmann::json::array();
    for (const v1::Token& token : reply.tokens()) tokens.push_back(TokenJson(token));
    std::printf("%s\n", tokens.dump(2).c_str());
    return absl::OkStatus();
  }
  absl::PrintF("%-8s  %-8s  %-16s  %-20s  %s\n", "ID", "STATE", "EXPIRES", "  USED", "OWNER");
  for (const v1::Token& token : reply.tokens()) PrintToken(token);
  return absl::OkStatus();
}

absl::Status RunTokenRevoke(const AdminFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Stub> stub, Connect(flags));
  grpc::ClientContext context;
  SetDeadline(context);
  v1::RevokeTokenRequest request;
  request.set_id(flags.id);
  v1::RevokeTokenReply reply;
  RETURN_IF_ERROR(FromGrpc(stub->RevokeToken(&context, request, &reply)));
  if (flags.json) {
    std::printf("%s\n", TokenJson(reply.token()).dump(2).c_str());
  } else {
    std::printf("revoked %s\n", reply.token().id().c_str());
  }
  return absl::OkStatus();
}

absl::Status RunTrace(const AdminFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Stub> stub, Connect(flags));
  grpc::ClientContext context;
  SetDeadline(context);
  v1::TraceRequest request;
  request.set_request(flags.request);
  v1::TraceReply reply;
  RETURN_IF_ERROR(FromGrpc(stub->GetTrace(&context, request, &reply)));
  if (!flags.output.empty()) {
    return WriteFileAtomically(flags.output, reply.chrome_json() + "\n", 0644);
  }
  std::printf("%s\n", reply.chrome_json().c_str());
  return absl::OkStatus();
}

void AddJsonFlag(CLI::App& command, AdminFlags& flags) {
  command.add_flag("--json", flags.json, "For machines");
}

// Runs `run` when the subcommand was named.
void OnCommand(CLI::App& command, std::shared_ptr<AdminFlags> flags, int& exit_code,
               std::function<absl::Status(const AdminFlags&)> run) {
  command.add_option("--state-dir", flags->state_dir,
                     "The coordinator's; default: as efedllm-coord's");
  command.callback([flags = std::move(flags), run = std::move(run), &exit_code] {
    const absl::Status status = run(*flags);
    if (status.ok()) return;
    std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
    exit_code = 1;
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<v1::Admin::Stub>> ConnectToCoordinator(std::string state_dir) {
  if (state_dir.empty()) {
    ASSIGN_OR_RETURN(state_dir, DefaultStateDir(ThisUser(), kCoordinatorState));
  }
  const std::string socket = AdminSocket(state_dir);
  if (access(socket.c_str(), R_OK | W_OK) != 0) {
    return absl::UnavailableError(
        absl::StrCat("no coordinator answers at ", socket,
                     "; is it running, is this its user, and is this its --state-dir?"));
  }
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // it is our own coordinator, and traces are long
  return v1::Admin::NewStub(
      grpc::CreateCustomChannel("unix:" + socket, grpc::InsecureChannelCredentials(), arguments));
}

void AddStatusCommand(CLI::App& root, int& exit_code) {
  CLI::App* command = root.add_subcommand("status", "Show a running coordinator's cluster");
  auto flags = std::make_shared<AdminFlags>();
  AddJsonFlag(*command, *flags);
  OnCommand(*command, flags, exit_code, RunStatus);
}

void AddTraceCommand(CLI::App& root, int& exit_code) {
  CLI::App* command = root.add_subcommand(
      "trace", "Show where a request's time went, as Chrome trace JSON for ui.perfetto.dev");
  auto flags = std::make_shared<AdminFlags>();
  command->add_option("--request", flags->request,
                      "The \"id\" of its reply; default: the request that began last");
  command->add_option("--output", flags->output, "A file for the JSON; default: standard output");
  OnCommand(*command, flags, exit_code, RunTrace);
}

void AddTokenCommand(CLI::App& root, int& exit_code) {
  CLI::App* tokens = root.add_subcommand("token", "Make, list and revoke join tokens");
  tokens->require_subcommand(1);

  CLI::App* create = tokens->add_subcommand("create", "Make a join token and print it");
  auto create_flags = std::make_shared<AdminFlags>();
  create
      ->add_option("--ttl", create_flags->ttl, "How long it admits workers: 24h, 90m; 0: for ever")
      ->capture_default_str();
  create->add_option("--owner", create_flags->owner,
                     "Whom the workers work for that join with it; none: they say so themselves");
  create->add_option("--uses", create_flags->uses, "How many workers it admits; 0: any number")
      ->capture_default_str();
  AddJsonFlag(*create, *create_flags);
  OnCommand(*create, create_flags, exit_code, RunTokenCreate);

  CLI::App* list = tokens->add_subcommand("list", "List all join tokens, without their secrets");
  auto list_flags = std::make_shared<AdminFlags>();
  AddJsonFlag(*list, *list_flags);
  OnCommand(*list, list_flags, exit_code, RunTokenList);

  CLI::App* revoke = tokens->add_subcommand("revoke", "Let a join token admit nobody any more");
  auto revoke_flags = std::make_shared<AdminFlags>();
  revoke->add_option("ID", revoke_flags->id, "As `efedllm-ctl token list` shows it")->required();
  AddJsonFlag(*revoke, *revoke_flags);
  OnCommand(*revoke, revoke_flags, exit_code, RunTokenRevoke);
}

}  // namespace efedllm
