#include "app/ctl_drain.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "app/ctl_admin.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "wire/admin_service.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

constexpr int kTimeIsOver = 3;
constexpr absl::Duration kPoll = absl::Milliseconds(200);

struct DrainFlags {
  std::string state_dir;
  std::string node;
  bool wait = false;
  std::string timeout = "5m";
  bool json = false;
};

using Stub = v1::Admin::Stub;

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
}

absl::StatusOr<v1::StatusReply> AskStatus(Stub& stub) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::StatusReply reply;
  RETURN_IF_ERROR(FromGrpc(stub.GetStatus(&context, v1::StatusRequest(), &reply)));
  return reply;
}

// Of one that is away and forgotten: it holds nothing.
v1::NodeStatus Find(const v1::StatusReply& status, uint64_t id) {
  for (const v1::NodeStatus& node : status.nodes()) {
    if (node.node() == id) return node;
  }
  v1::NodeStatus gone;
  gone.set_node(id);
  gone.set_state("gone");
  return gone;
}

bool HoldsLayers(const v1::NodeStatus& node) { return node.last_layer() > node.first_layer(); }

std::string NameAndId(const std::string& name, uint64_t id) {
  const std::string node = NodeName(NodeId{id});
  return name.empty() ? node : absl::StrCat(name, " (", node, ")");
}

std::string Progress(const v1::StatusReply& status, const v1::NodeStatus& node) {
  std::string text = absl::StrCat("it holds layers [", node.first_layer(), ",", node.last_layer(),
                                  "), the cluster is ", status.state());
  if (!status.reason().empty()) absl::StrAppend(&text, " (", status.reason(), ")");
  return text;
}

// What is known of the node when the command ends.
struct Outcome {
  v1::NodeStatus node;
  bool changed = false;
  double waited_seconds = 0;
};

// Until the node holds no layers, or for so long (zero: without end). Progress goes to stderr.
absl::StatusOr<Outcome> AwaitEmpty(Stub& stub, uint64_t id, absl::Duration timeout) {
  const absl::Time start = SteadyNow();
  std::string last;
  while (true) {
    ASSIGN_OR_RETURN(const v1::StatusReply status, AskStatus(stub));
    Outcome outcome;
    outcome.node = Find(status, id);
    outcome.waited_seconds = absl::ToDoubleSeconds(SteadyNow() - start);
    if (!HoldsLayers(outcome.node)) return outcome;
    const std::string progress = Progress(status, outcome.node);
    if (progress != last) std::fprintf(stderr, "%s\n", progress.c_str());
    last = progress;
    if (timeout != absl::ZeroDuration() && SteadyNow() - start >= timeout) return outcome;
    absl::SleepFor(kPoll);
  }
}

void PrintJson(const Outcome& outcome) {
  const v1::NodeStatus& node = outcome.node;
  const nlohmann::json json = {{"node", NodeName(NodeId{node.node()})},
                               {"name", node.name()},
                               {"changed", outcome.changed},
                               {"state", node.state()},
                               {"why", node.why()},
                               {"first_layer", node.first_layer()},
                               {"last_layer", node.last_layer()},
                               {"waited_seconds", outcome.waited_seconds}};
  std::printf("%s\n", json.dump(2).c_str());
}

absl::StatusOr<absl::Duration> ParseTimeout(const std::string& text) {
  absl::Duration timeout;
  if (!absl::ParseDuration(text, &timeout) || timeout < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--timeout: write 90s, 5m or 1h; 0 means no end");
  }
  return timeout;
}

absl::Status RunDrain(const DrainFlags& flags, int& exit_code) {
  ASSIGN_OR_RETURN(const absl::Duration timeout, ParseTimeout(flags.timeout));
  ASSIGN_OR_RETURN(const std::unique_ptr<Stub> stub, ConnectToCoordinator(flags.state_dir));
  grpc::ClientContext context;
  SetDeadline(context);
  v1::DrainNodeRequest request;
  request.set_node(flags.node);
  v1::DrainNodeReply reply;
  RETURN_IF_ERROR(FromGrpc(stub->DrainNode(&context, request, &reply)));
  const std::string name = NameAndId(reply.name(), reply.node());
  Outcome outcome;
  if (flags.wait) {
    ASSIGN_OR_RETURN(outcome, AwaitEmpty(*stub, reply.node(), timeout));
  } else {
    ASSIGN_OR_RETURN(const v1::StatusReply status, AskStatus(*stub));
    outcome.node = Find(status, reply.node());
  }
  outcome.changed = reply.changed();
  const bool empty = !HoldsLayers(outcome.node);
  if (flags.wait && !empty) exit_code = kTimeIsOver;
  if (flags.json) {
    PrintJson(outcome);
  } else if (empty) {
    std::printf("%s is drained: it holds no layers and gets none\n", name.c_str());
  } else if (!flags.wait) {
    std::printf("%s is draining: `efedllm-ctl status` shows when it holds no layers\n",
                name.c_str());
  } else {
    std::fprintf(stderr, "error: %s still holds layers after %s; it goes on draining\n",
                 name.c_str(), absl::FormatDuration(timeout).c_str());
  }
  return absl::OkStatus();
}

absl::Status RunUndrain(const DrainFlags& flags, int&) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Stub> stub, ConnectToCoordinator(flags.state_dir));
  grpc::ClientContext context;
  SetDeadline(context);
  v1::UndrainNodeRequest request;
  request.set_node(flags.node);
  v1::UndrainNodeReply reply;
  RETURN_IF_ERROR(FromGrpc(stub->UndrainNode(&context, request, &reply)));
  if (flags.json) {
    ASSIGN_OR_RETURN(const v1::StatusReply status, AskStatus(*stub));
    PrintJson({Find(status, reply.node()), reply.changed(), 0});
  } else {
    std::printf("%s %s\n", NameAndId(reply.name(), reply.node()).c_str(),
                reply.changed() ? "may get layers again" : "was not drained");
  }
  return absl::OkStatus();
}

CLI::App* AddCommand(CLI::App& root, const char* name, const char* help,
                     const std::shared_ptr<DrainFlags>& flags, int& exit_code,
                     absl::Status (*run)(const DrainFlags&, int&)) {
  CLI::App* command = root.add_subcommand(name, help);
  command
      ->add_option(
          "NODE", flags->node,
          "Its name or its id, as `efedllm-ctl status` shows them, or the beginning of one")
      ->required();
  command->add_flag("--json", flags->json, "For machines");
  command->add_option("--state-dir", flags->state_dir,
                      "The coordinator's; default: as efedllm-coord's");
  command->callback([flags, run, &exit_code] {
    const absl::Status status = run(*flags, exit_code);
    if (status.ok()) return;
    std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
    exit_code = 1;
  });
  return command;
}

}  // namespace

void AddDrainCommands(CLI::App& root, int& exit_code) {
  const auto drain = std::make_shared<DrainFlags>();
  CLI::App* command = AddCommand(
      root, "drain",
      "Take a node out of service: its layers, and what it knows of the requests that run, move "
      "to\n"
      "other nodes while these go on, and it gets no more, also after restarts, until `undrain`.",
      drain, exit_code, RunDrain);
  command->add_flag("--wait", drain->wait,
                    "Until the node holds no layers and can be switched off");
  command
      ->add_option("--timeout", drain->timeout,
                   "How long to wait: 90s, 5m; 0: without end. Draining goes on after it")
      ->capture_default_str();
  command->footer(
      "Exit codes: 0 done, 1 failed (no such node, no coordinator), 2 wrong usage, 3 the node\n"
      "still held layers when --timeout was over.\n\n"
      "Example: efedllm-ctl drain office-12 --wait && ssh office-12 sudo reboot");
  AddCommand(root, "undrain", "Put a drained node back: it may get layers again.",
             std::make_shared<DrainFlags>(), exit_code, RunUndrain);
}

}  // namespace efedllm
