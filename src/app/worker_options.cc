#include "app/worker_options.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "net/address.h"
#include "net/join_token.h"

namespace efedllm {
namespace {

constexpr char kFooter[] =
    "The coordinator prints the command that joins a worker; `efedllm-ctl token create` there "
    "makes\n"
    "more tokens. A worker that joined once needs no token any more: its certificate is in the\n"
    "state folder, and so are the weights that it fetched.\n"
    "\n"
    "Exit codes: 0 stopped by SIGTERM or SIGINT, after handing its layers over; 1 runtime error;\n"
    "2 wrong usage; 3 refused by the coordinator (token, certificate or version), so that "
    "starting\n"
    "again does not help.";

constexpr uint64_t kMostMemoryBytes = uint64_t{1} << 48;  // what the coordinator takes for true

absl::Status Named(absl::string_view flag, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(flag, ": ", status.message()));
}

absl::Status CheckInsecure(const WorkerOptions& options) {
  for (const auto& [flag, address] :
       {std::pair("--join", options.coordinator), std::pair("--listen", options.listen)}) {
    if (IsLoopback(address)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--insecure turns TLS off, and then anybody on the way to ", address,
                     " could read and forge everything; it is for this machine alone: use ", flag,
                     " 127.0.0.1:PORT, or drop --insecure and join with a --token"));
  }
  return absl::OkStatus();
}

// HOST:PORT, or HOST for the port that the worker listens on.
absl::Status CheckAdvertise(const std::string& advertise) {
  if (advertise.empty()) return absl::OkStatus();
  const absl::StatusOr<HostPort> with_port = ParseHostPort(advertise);
  const bool right =
      with_port.ok() ? with_port->port != 0 : ParseHostPort(absl::StrCat(advertise, ":1")).ok();
  if (right) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--advertise: \"", Printable(advertise), "\" is neither HOST nor HOST:PORT"));
}

absl::StatusOr<uint64_t> BytesOf(absl::string_view flag, const std::string& value) {
  const absl::StatusOr<uint64_t> bytes = ParseBytes(value);
  RETURN_IF_ERROR(Named(flag, bytes.status()));
  if (*bytes > kMostMemoryBytes) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " is ", FormatBytes(*bytes),
                                                   "; a node can use ",
                                                   FormatBytes(kMostMemoryBytes), " at most"));
  }
  return bytes;
}

absl::StatusOr<std::string> NodeNameForPeople(const std::string& flag,
                                              const WorkerMachine& machine) {
  constexpr size_t kMaxBytes = 64;
  if (flag.empty()) return Printable(machine.host_name.substr(0, kMaxBytes / 4));
  if (flag.size() > kMaxBytes || Printable(flag) != flag) {
    return absl::InvalidArgumentError("--name: printable UTF-8 of at most 64 bytes, please");
  }
  return flag;
}

}  // namespace

void AddWorkerFlags(CLI::App& app, WorkerFlags& flags) {
  app.footer(kFooter);
  app.set_config("--config", "", "TOML file with these options (config/worker.toml)");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.add_option("--join", flags.join, "The coordinator: HOST:PORT")->required();
  app.add_option("--token", flags.token,
                 "Join token, the first time; default: $EFEDLLM_TOKEN, which other users can't "
                 "see in the process list");
  app.add_option("--state-dir", flags.state_dir,
                 "The node's key, certificate and weights; default: /var/lib/efedllm/worker as "
                 "root, else ~/.local/state/efedllm/worker");
  app.add_option("--name", flags.name, "What people call this node; default: the host's name");
  app.add_option("--owner", flags.owner,
                 "Whom this node works for, where its join token does not say");
  app.add_option("--threads", flags.threads, "Threads that compute; 0: one per CPU")
      ->capture_default_str();
  app.add_option("--memory", flags.memory,
                 "Memory for weights, KV and what is kept for audits, such as 8GiB; 0: 80 % of "
                 "what is available")
      ->capture_default_str();
  app.add_option("--audit-memory", flags.audit_memory,
                 "Of that, for activations that the coordinator may ask for in audits; at most an "
                 "eighth")
      ->capture_default_str();
  app.add_option("--audit-disk", flags.audit_disk,
                 "In the state folder, for older ones; the oldest go. 0: none")
      ->capture_default_str();
  app.add_option("--listen", flags.listen,
                 "Where other nodes send activations: HOST:PORT, port 0 for any free one; "
                 "default: 0.0.0.0:0, or 127.0.0.1:0 with --insecure");
  app.add_option("--advertise", flags.advertise,
                 "HOST or HOST:PORT where other nodes reach --listen, behind NAT or Docker; "
                 "default: the address that the coordinator sees");
  app.add_option("--kernels", flags.kernels, "auto, scalar, avx2, avx512, neon or neon_dotprod")
      ->capture_default_str();
  app.add_option("--retry-for", flags.retry_for,
                 "How long to look for a coordinator that is away, such as 90m; then the worker "
                 "ends with an error")
      ->capture_default_str();
  app.add_flag("--insecure", flags.insecure, "No TLS and no token; on loopback addresses only");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.add_flag("--log-json", flags.log_json, "Log one JSON object per line");
}

absl::StatusOr<CheckedWorkerOptions> CheckWorkerFlags(const WorkerFlags& flags,
                                                      const WorkerMachine& machine) {
  CheckedWorkerOptions options;
  WorkerOptions& worker = options.worker;
  const absl::StatusOr<HostPort> join = ParseHostPort(flags.join);
  RETURN_IF_ERROR(Named("--join", join.status()));
  if (join->port == 0) return absl::InvalidArgumentError("--join: the port can't be 0");
  worker.coordinator = flags.join;
  const std::string any = flags.insecure ? "127.0.0.1:0" : "0.0.0.0:0";
  worker.listen = flags.listen.empty() ? any : flags.listen;
  RETURN_IF_ERROR(Named("--listen", ParseHostPort(worker.listen).status()));
  worker.insecure = flags.insecure;
  if (flags.insecure) RETURN_IF_ERROR(CheckInsecure(worker));
  RETURN_IF_ERROR(CheckAdvertise(flags.advertise));
  worker.advertise = flags.advertise;

  const std::string& token = flags.token.empty() ? machine.token : flags.token;
  if (!token.empty() && !flags.insecure) {
    const absl::StatusOr<JoinToken> parsed = ParseJoinToken(token);
    RETURN_IF_ERROR(Named("--token", parsed.status()));
    worker.token = *parsed;
  }
  if (flags.threads < 0 || flags.threads > 1024) {
    return absl::InvalidArgumentError("--threads must be 0 to 1024");
  }
  worker.threads = flags.threads != 0 ? static_cast<int>(flags.threads) : machine.available_cpus;
  ASSIGN_OR_RETURN(worker.memory_bytes, BytesOf("--memory", flags.memory));
  ASSIGN_OR_RETURN(worker.kept_rows_memory_bytes, BytesOf("--audit-memory", flags.audit_memory));
  ASSIGN_OR_RETURN(worker.kept_rows_disk_bytes, BytesOf("--audit-disk", flags.audit_disk));
  ASSIGN_OR_RETURN(worker.name, NodeNameForPeople(flags.name, machine));
  if (flags.owner.size() > 64 || flags.owner != Printable(flags.owner)) {
    return absl::InvalidArgumentError("--owner: printable UTF-8 of at most 64 bytes, please");
  }
  worker.owner = flags.owner;
  worker.state_dir = flags.state_dir;
  if (flags.state_dir.empty()) {
    ASSIGN_OR_RETURN(worker.state_dir, DefaultStateDir(machine.user, "worker"));
  }
  worker.kernels = flags.kernels;
  if (!absl::ParseDuration(flags.retry_for, &worker.retry_for) ||
      worker.retry_for < absl::Seconds(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--retry-for: \"", Printable(flags.retry_for),
                     "\" is no time of a second or more, such as 90m or 24h"));
  }
  options.log_level = flags.log_level;
  options.log_json = flags.log_json;
  return options;
}

}  // namespace efedllm
