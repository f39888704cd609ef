#include "app/coord_options.h"

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "net/address.h"
#include "tensor/kv_type.h"

namespace efedllm {
namespace {

absl::Status InRange(absl::string_view flag, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " is ", value, "; it must be ", least, " to ", most));
}

absl::Status Named(absl::string_view flag, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(flag, ": ", status.message()));
}

absl::StatusOr<CodecRequest> CheckCodec(const std::string& codec) {
  const std::optional<CodecRequest> request = CodecRequest::FromName(codec);
  if (request) return *request;
  return absl::InvalidArgumentError(
      absl::StrCat("--codec: unknown level \"", codec,
                   "\"; use lossless, transparent, balanced, small or auto"));
}

absl::StatusOr<std::optional<KvType>> CheckKvTypeFlag(const std::string& kv_type) {
  const std::optional<KvType> known = KvTypeFromName(kv_type);
  if (known.has_value() || kv_type == "auto") return known;
  return absl::InvalidArgumentError(
      absl::StrCat("--kv-type: unknown type \"", kv_type, "\"; use auto, f32, f16 or q8_0"));
}

absl::StatusOr<Layout> CheckLayout(const std::string& layout) {
  if (layout == "auto") return Layout::kAuto;
  if (layout == "chain") return Layout::kChain;
  if (layout == "replicas") return Layout::kReplicas;
  return absl::InvalidArgumentError(
      absl::StrCat("--layout: unknown layout \"", layout, "\"; use auto, chain or replicas"));
}

absl::Status CheckAddresses(const CoordFlags& flags) {
  RETURN_IF_ERROR(Named("--listen", ParseHostPort(flags.listen).status()));
  RETURN_IF_ERROR(Named("--http", ParseHostPort(flags.http).status()));
  if (!flags.insecure) return absl::OkStatus();
  for (const auto& [flag, address] :
       {std::pair("--listen", flags.listen), std::pair("--http", flags.http)}) {
    if (IsLoopback(address)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--insecure turns TLS off, and then anybody who reaches ", address,
                     " could read and forge everything; it is for this machine alone: use ", flag,
                     " 127.0.0.1:PORT, or drop --insecure"));
  }
  return absl::OkStatus();
}

absl::Status CheckNumbers(const CoordFlags& flags) {
  RETURN_IF_ERROR(InRange("--min-workers", flags.min_workers, 0, 4096));
  RETURN_IF_ERROR(InRange("--standby", flags.standby, 0, 4096));
  RETURN_IF_ERROR(InRange("--threads", flags.threads, 0, 1024));
  RETURN_IF_ERROR(InRange("--context", flags.context, 0, int64_t{1} << 24));
  RETURN_IF_ERROR(InRange("--max-sequences", flags.max_sequences, 1, 1024));
  return InRange("--queue", flags.queue, 1, 1'000'000);
}

absl::StatusOr<IncentiveRules> CheckIncentiveRules(const CoordFlags& flags) {
  if (flags.no_receipts && !flags.incentive_rules.empty()) {
    return absl::InvalidArgumentError(
        "--incentive-rules: there is nothing to pay for with --no-receipts");
  }
  absl::StatusOr<IncentiveRules> rules = ReadIncentiveRules(flags.incentive_rules);
  RETURN_IF_ERROR(Named("--incentive-rules", rules.status()));
  return *rules;
}

}  // namespace

void AddCoordFlags(CLI::App& app, CoordFlags& flags) {
  app.set_config("--config", "", "TOML file with these options (config/coordinator.toml)");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.add_option("--model", flags.model, "GGUF file or Hugging Face folder to serve")->required();
  app.add_option("--draft-model", flags.draft_model,
                 "A small model with the same vocabulary that guesses tokens here, for --model to "
                 "verify several at once; default: none");
  app.add_option("--listen", flags.listen, "Where workers join: HOST:PORT (gRPC)")
      ->capture_default_str();
  app.add_option("--http", flags.http, "Where the OpenAI API answers: HOST:PORT")
      ->capture_default_str();
  app.add_option(
      "--state-dir", flags.state_dir,
      "Keys, tokens, digests, packed weights; default: /var/lib/efedllm/coordinator as root, else "
      "~/.local/state/efedllm/coordinator");
  app.add_option("--min-workers", flags.min_workers,
                 "Serve when so many workers joined; 0: compute alone until one joins")
      ->capture_default_str();
  app.add_option("--codec", flags.codec,
                 "How activations travel between machines:\n"
                 "  lossless     as computed; the text is the same on every plan\n"
                 "  transparent  compressed; mean KL to the uncoded model at most 0.001\n"
                 "  balanced     at most 0.01, at about a fifth of f16's bytes\n"
                 "  small        at most 0.03\n"
                 "  auto         lossless where links are fast, else what measured times say\n"
                 "f32, f16 and int8 name a codec, for benchmarks")
      ->capture_default_str();
  app.add_option("--memory", flags.memory,
                 "Memory for computing alone, such as 8GiB; 0: 80 % of what is available")
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "Threads that compute; 0: one per CPU")
      ->capture_default_str();
  app.add_option("--kernels", flags.kernels, "auto, scalar, avx2, avx512, neon or neon_dotprod")
      ->capture_default_str();
  app.add_option("--kv-type", flags.kv_type,
                 "What keys and values are kept in on all nodes: f32, f16, q8_0, or auto (f16, but "
                 "f32 for small models)")
      ->capture_default_str();
  app.add_option("--layout", flags.layout,
                 "How layers lie on workers: chain (all workers in one), replicas (chains of their "
                 "own), or auto (a chain, unless another serves clearly more)")
      ->capture_default_str();
  app.add_option(
         "--standby", flags.standby,
         "Workers that get no layers but have the weights at hand, to take the place of one "
         "that is lost or leaves; fewer where the model needs them")
      ->capture_default_str();
  app.add_flag("--no-receipts", flags.no_receipts,
               "Workers sign no receipts, and there are no audits and no ledger: for a cluster "
               "where all nodes are your own and nobody is paid");
  app.add_option("--incentive-rules", flags.incentive_rules,
                 "TOML file with prices, audit rates and thresholds (config/incentive.toml); "
                 "default: as that file shows them");
  app.add_option("--context", flags.context,
                 "Tokens that a sequence may have; 0: the model's, at most 8192")
      ->capture_default_str();
  app.add_option("--max-sequences", flags.max_sequences, "Sequences that run at once")
      ->capture_default_str();
  app.add_option("--queue", flags.queue, "Sequences that wait; more get status 429")
      ->capture_default_str();
  app.add_flag("--insecure", flags.insecure, "No TLS; on loopback addresses only");
  app.add_option("--log-level", flags.log_level, "trace, debug, info, warn, error or off")
      ->capture_default_str();
  app.add_flag("--log-json", flags.log_json, "Log one JSON object per line");
}

absl::StatusOr<CoordOptions> CheckCoordFlags(const CoordFlags& flags, const CoordMachine& machine) {
  CoordOptions options;
  CoordinatorOptions& coordinator = options.coordinator;
  RETURN_IF_ERROR(CheckAddresses(flags));
  RETURN_IF_ERROR(CheckNumbers(flags));
  ASSIGN_OR_RETURN(coordinator.codec, CheckCodec(flags.codec));
  ASSIGN_OR_RETURN(coordinator.layout, CheckLayout(flags.layout));
  ASSIGN_OR_RETURN(coordinator.kv_type, CheckKvTypeFlag(flags.kv_type));
  const absl::StatusOr<uint64_t> memory = ParseBytes(flags.memory);
  RETURN_IF_ERROR(Named("--memory", memory.status()));
  coordinator.own.memory_bytes = *memory != 0 ? *memory : machine.available_memory_bytes / 5 * 4;
  coordinator.own.threads =
      static_cast<uint32_t>(flags.threads != 0 ? flags.threads : machine.available_cpus);
  coordinator.model = flags.model;
  coordinator.draft_model = flags.draft_model;
  coordinator.listen = flags.listen;
  coordinator.http = flags.http;
  coordinator.insecure = flags.insecure;
  coordinator.kernels = flags.kernels;
  coordinator.context = static_cast<uint32_t>(flags.context);
  coordinator.scheduler.max_sequences = static_cast<size_t>(flags.max_sequences);
  coordinator.scheduler.max_queue = static_cast<size_t>(flags.queue);
  coordinator.rules.min_workers = static_cast<size_t>(flags.min_workers);
  coordinator.standby = static_cast<size_t>(flags.standby);
  coordinator.receipts = !flags.no_receipts;
  ASSIGN_OR_RETURN(coordinator.incentive_rules, CheckIncentiveRules(flags));
  coordinator.state_dir = flags.state_dir;
  if (flags.state_dir.empty()) {
    ASSIGN_OR_RETURN(coordinator.state_dir, DefaultStateDir(machine.user, kCoordinatorState));
  }
  options.log_level = flags.log_level;
  options.log_json = flags.log_json;
  return options;
}

}  // namespace efedllm
