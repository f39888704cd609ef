#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "app/ctl_admin.h"
#include "app/ctl_audit.h"
#include "app/ctl_trust.h"
#include "app/local_run.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/status_macros.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(200);
constexpr absl::Duration kPatience = absl::Minutes(2);

struct PardonFlags {
  std::string state_dir;
  std::string node;
  bool json = false;
};

absl::StatusOr<v1::PardonNodeReply> Ask(v1::Admin::Stub& stub, const std::string& node) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::PardonNodeRequest request;
  request.set_node(node);
  v1::PardonNodeReply reply;
  RETURN_IF_ERROR(FromGrpc(stub.PardonNode(&context, request, &reply)));
  return reply;
}

absl::Status RunPardon(const PardonFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<v1::Admin::Stub> stub,
                   ConnectToCoordinator(flags.state_dir));
  v1::PardonNodeReply reply;
  const absl::Time until = SteadyNow() + kPatience;
  while (true) {
    ASSIGN_OR_RETURN(reply, Ask(*stub, flags.node));
    if (reply.waiting() == 0) break;
    if (SteadyNow() > until) {
      return absl::DeadlineExceededError(
          absl::StrCat("of ", reply.audited_again(), " chunks that are audited again ",
                       reply.waiting(), " have no verdict yet: run this again"));
    }
    absl::SleepFor(kPoll);
  }
  const std::string id = NodeName(NodeId{reply.node()});
  if (flags.json) {
    const nlohmann::json json = {{"node", id},
                                 {"name", reply.name()},
                                 {"audited_again", reply.audited_again()},
                                 {"trust", TrustJson(reply.trust())}};
    std::printf("%s\n", json.dump(2).c_str());
    return absl::OkStatus();
  }
  if (reply.audited_again() > 0) {
    std::printf("%u chunks that it had not shown were audited again, and are right\n",
                reply.audited_again());
  }
  std::printf(
      "%s is on probation: it gets layers again, every chunk that it computes is audited, and it\n"
      "is paid for none before that\n",
      reply.name().empty() ? id.c_str() : absl::StrCat(reply.name(), " (", id, ")").c_str());
  return absl::OkStatus();
}

}  // namespace

void AddPardonCommand(CLI::App& root, int& exit_code) {
  auto flags = std::make_shared<PardonFlags>();
  CLI::App* command = root.add_subcommand(
      "pardon",
      "Grant a node's appeal: from quarantine, or from an eviction for what looks like a fault of "
      "its\n"
      "memory, it comes back on probation. First the chunks that it had not shown are audited "
      "again: it\n"
      "must show them, and they must be right. Then all of its work is audited, pay waits for "
      "that, "
      "and a\n"
      "single wrong chunk evicts it again. See `efedllm-ctl audit list` for what there is against "
      "it.");
  command
      ->add_option(
          "NODE", flags->node,
          "Its name or its id, as `efedllm-ctl status` shows them, or the beginning of one")
      ->required();
  command->add_flag("--json", flags->json, "{\"node\", \"name\", \"audited_again\", \"trust\"}");
  command->add_option("--state-dir", flags->state_dir,
                      "The coordinator's; default: as efedllm-coord's");
  command->footer(
      "Exit codes: 0 it is on probation; 1 it may not be pardoned, and why, or there is no such\n"
      "node or no coordinator; 2 wrong usage.\n\n"
      "Example: efedllm-ctl pardon office-12");
  OnCommand(*command, exit_code, [flags] { return RunPardon(*flags); });
}

}  // namespace efedllm
