#include "wire/cluster_wire.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/kv_rule.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "wire/field_checks.h"
#include "wire/model_wire.h"
#include "wire/tensor_wire.h"

namespace efedllm {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxMessageBytes = 1024;
constexpr uint32_t kTensorsPerLayer = 24;
constexpr uint64_t kMaxFrameValues = uint64_t{1} << 28;  // 1 GiB of f32 in one step

absl::StatusOr<NodeProfile> ProfileFromWire(const v1::NodeProfile& message) {
  RETURN_IF_ERROR(CheckRange("profile.threads", message.threads(), 1, 4096));
  RETURN_IF_ERROR(CheckRange("profile.memory_bytes", message.memory_bytes(), 0, kMaxCount));
  RETURN_IF_ERROR(CheckRate("profile.read_bytes_per_second", message.read_bytes_per_second()));
  RETURN_IF_ERROR(CheckRate("profile.int8_ops_per_second", message.int8_ops_per_second()));
  RETURN_IF_ERROR(CheckRate("profile.f32_flops_per_second", message.f32_flops_per_second()));
  NodeProfile profile;
  profile.threads = message.threads();
  profile.memory_bytes = message.memory_bytes();
  profile.read_bytes_per_second = message.read_bytes_per_second();
  profile.int8_ops_per_second = message.int8_ops_per_second();
  profile.f32_flops_per_second = message.f32_flops_per_second();
  return profile;
}

absl::StatusOr<StepLimits> LimitsFromWire(const v1::StepLimits& message, uint32_t d_model) {
  RETURN_IF_ERROR(
      CheckRange("limits.max_tokens", message.max_tokens(), 1, kMaxFrameValues / d_model));
  RETURN_IF_ERROR(CheckRange("limits.max_spans", message.max_spans(), 1, 1u << 14));
  RETURN_IF_ERROR(CheckRange("limits.max_trims", message.max_trims(), 1, 1u << 16));
  RETURN_IF_ERROR(CheckRange("limits.max_forks", message.max_forks(), 1, 1u << 14));
  RETURN_IF_ERROR(CheckRange("limits.max_position", message.max_position(), 1, 1u << 27));
  StepLimits limits;
  limits.max_tokens = message.max_tokens();
  limits.max_spans = message.max_spans();
  limits.max_trims = message.max_trims();
  limits.max_forks = message.max_forks();
  limits.max_position = message.max_position();
  return limits;
}

absl::StatusOr<TensorSpec> BasisFromWire(const v1::TensorSpec& message, uint32_t d_model) {
  ASSIGN_OR_RETURN(TensorSpec spec, FromWire(message));
  if (spec.rows != 1 || spec.dtype != DType::kF32 || spec.bytes() > MaxBasisBytes(d_model)) {
    return WrongField("basis", absl::StrCat("of ", spec.bytes(), " bytes is none of this model"));
  }
  return spec;
}

absl::StatusOr<LayerRange> LayersFromWire(const v1::Assignment& message, uint32_t layers) {
  RETURN_IF_ERROR(CheckRange("last_layer", message.last_layer(), 1, layers));
  RETURN_IF_ERROR(CheckRange("first_layer", message.first_layer(), 0, message.last_layer() - 1));
  return LayerRange{message.first_layer(), message.last_layer()};
}

}  // namespace

v1::Hello ToWire(const Hello& hello) {
  v1::Hello message;
  message.set_protocol_version(hello.protocol_version);
  message.set_engine_version(hello.engine_version);
  message.set_numerics_id(hello.numerics_id);
  message.set_name(hello.name);
  message.set_hop_address(hello.hop_address);
  message.set_public_key(std::string(hello.public_key.begin(), hello.public_key.end()));
  message.set_owner(hello.owner);
  v1::NodeProfile& profile = *message.mutable_profile();
  profile.set_threads(hello.profile.threads);
  profile.set_memory_bytes(hello.profile.memory_bytes);
  profile.set_read_bytes_per_second(hello.profile.read_bytes_per_second);
  profile.set_int8_ops_per_second(hello.profile.int8_ops_per_second);
  profile.set_f32_flops_per_second(hello.profile.f32_flops_per_second);
  return message;
}

v1::Assignment ToWire(const Assignment& assignment) {
  v1::Assignment message;
  message.set_epoch(assignment.epoch.v);
  message.set_first_layer(assignment.layers.first);
  message.set_last_layer(assignment.layers.last);
  *message.mutable_model() = ToWire(assignment.config);
  for (const TensorSpec& spec : assignment.tensors) *message.add_tensors() = ToWire(spec);
  message.set_kv_tokens(assignment.kv_tokens);
  v1::StepLimits& limits = *message.mutable_limits();
  limits.set_max_tokens(assignment.limits.max_tokens);
  limits.set_max_spans(assignment.limits.max_spans);
  limits.set_max_trims(assignment.limits.max_trims);
  limits.set_max_forks(assignment.limits.max_forks);
  limits.set_max_position(assignment.limits.max_position);
  message.set_upstream_node(assignment.upstream.v);
  message.set_downstream_node(assignment.downstream.v);
  message.set_downstream_address(assignment.downstream_address);
  message.set_upstream_codec(assignment.upstream_codec.number());
  message.set_codec(assignment.codec.number());
  if (assignment.upstream_basis) {
    *message.mutable_upstream_basis() = ToWire(*assignment.upstream_basis);
  }
  if (assignment.downstream_basis) {
    *message.mutable_downstream_basis() = ToWire(*assignment.downstream_basis);
  }
  message.set_kv_type(static_cast<uint32_t>(assignment.kv_type));
  message.set_continues(assignment.continues.v);
  message.set_stage(assignment.stage);
  message.set_keep_outputs(assignment.keep_outputs);
  return message;
}

v1::StageStatus ToWire(const StageReport& report) {
  v1::StageStatus message;
  message.set_epoch(report.epoch.v);
  switch (report.state) {
    case StageState::kFetching:
      message.set_state(v1::StageStatus::FETCHING);
      break;
    case StageState::kReady:
      message.set_state(v1::StageStatus::READY);
      break;
    case StageState::kFailed:
      message.set_state(v1::StageStatus::FAILED);
      break;
  }
  message.set_bytes_held(report.bytes_held);
  message.set_bytes_total(report.bytes_total);
  message.set_bytes_fetched(report.bytes_fetched);
  message.set_message(report.message);
  message.set_kept(report.kept);
  message.set_fault(static_cast<v1::StageStatus::Fault>(report.fault));
  return message;
}

v1::Heartbeat ToWire(const StageCounters& counters) {
  v1::Heartbeat message;
  message.set_epoch(counters.epoch.v);
  message.set_steps(counters.steps);
  message.set_tokens(counters.tokens);
  message.set_compute_micros(counters.compute_micros);
  message.set_bytes_in(counters.bytes_in);
  message.set_bytes_out(counters.bytes_out);
  message.set_sequences(counters.sequences);
  message.set_kv_tokens_used(counters.kv_tokens_used);
  message.set_kv_tokens_total(counters.kv_tokens_total);
  return message;
}

absl::StatusOr<Hello> FromWire(const v1::Hello& message) {
  if (message.protocol_version() != kProtocolVersion) {
    const bool worker_is_older = message.protocol_version() < kProtocolVersion;
    return absl::FailedPreconditionError(
        absl::StrCat("the worker speaks protocol version ", message.protocol_version(),
                     " and the coordinator version ", kProtocolVersion, ": update eFedLLM on the ",
                     worker_is_older ? "worker" : "coordinator"));
  }
  RETURN_IF_ERROR(CheckText("engine_version", message.engine_version(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckText("name", message.name(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckAddress("hop_address", message.hop_address()));
  Hello hello;
  hello.protocol_version = message.protocol_version();
  hello.engine_version = message.engine_version();
  hello.numerics_id = message.numerics_id();
  hello.name = message.name();
  ASSIGN_OR_RETURN(hello.profile, ProfileFromWire(message.profile()));
  hello.hop_address = message.hop_address();
  if (message.public_key().size() != hello.public_key.size()) {
    return WrongField("public_key", "is no Ed25519 key");
  }
  std::copy(message.public_key().begin(), message.public_key().end(), hello.public_key.begin());
  RETURN_IF_ERROR(CheckText("owner", message.owner(), kMaxNameBytes));
  hello.owner = message.owner();
  return hello;
}

absl::StatusOr<Assignment> FromWire(const v1::Assignment& message) {
  Assignment assignment;
  RETURN_IF_ERROR(CheckRange("epoch", message.epoch(), 1, kMaxCount));
  assignment.epoch = Epoch{message.epoch()};
  ASSIGN_OR_RETURN(assignment.config, FromWire(message.model()));
  ASSIGN_OR_RETURN(assignment.layers, LayersFromWire(message, assignment.config.layers));
  RETURN_IF_ERROR(CheckRange("the number of tensors", static_cast<uint64_t>(message.tensors_size()),
                             1, uint64_t{assignment.layers.size()} * kTensorsPerLayer + 1));
  assignment.tensors.reserve(static_cast<size_t>(message.tensors_size()));
  for (const v1::TensorSpec& tensor : message.tensors()) {
    ASSIGN_OR_RETURN(TensorSpec spec, FromWire(tensor));
    assignment.tensors.push_back(std::move(spec));
  }
  RETURN_IF_ERROR(CheckRange("kv_tokens", message.kv_tokens(), 1, uint64_t{1} << 40));
  assignment.kv_tokens = message.kv_tokens();
  ASSIGN_OR_RETURN(assignment.limits, LimitsFromWire(message.limits(), assignment.config.d_model));
  assignment.upstream = NodeId{message.upstream_node()};
  assignment.downstream = NodeId{message.downstream_node()};
  RETURN_IF_ERROR(CheckAddress("downstream_address", message.downstream_address()));
  assignment.downstream_address = message.downstream_address();
  const std::optional<CodecSetting> codec = CodecFromNumber(message.codec());
  if (!codec) return WrongField("codec", absl::StrCat("is ", message.codec(), ", unknown here"));
  assignment.codec = *codec;
  const std::optional<CodecSetting> upstream_codec = CodecFromNumber(message.upstream_codec());
  if (!upstream_codec) {
    return WrongField("upstream_codec",
                      absl::StrCat("is ", message.upstream_codec(), ", unknown here"));
  }
  assignment.upstream_codec = *upstream_codec;
  if (message.has_upstream_basis()) {
    ASSIGN_OR_RETURN(assignment.upstream_basis,
                     BasisFromWire(message.upstream_basis(), assignment.config.d_model));
  }
  if (message.has_downstream_basis()) {
    ASSIGN_OR_RETURN(assignment.downstream_basis,
                     BasisFromWire(message.downstream_basis(), assignment.config.d_model));
  }
  if (codec->needs_basis() && !assignment.downstream_basis) {
    return WrongField("codec", "needs a basis, and there is none");
  }
  if (upstream_codec->needs_basis() && !assignment.upstream_basis) {
    return WrongField("upstream_codec", "needs a basis, and there is none");
  }
  RETURN_IF_ERROR(CheckRange("kv_type", message.kv_type(), 0, kKvTypeCount - 1));
  assignment.kv_type = static_cast<KvType>(message.kv_type());
  RETURN_IF_ERROR(CheckKvType(assignment.config, assignment.kv_type));
  RETURN_IF_ERROR(CheckRange("continues", message.continues(), 0, message.epoch() - 1));
  assignment.continues = Epoch{message.continues()};
  RETURN_IF_ERROR(CheckRange("stage", message.stage(), 0, assignment.config.layers - 1));
  assignment.stage = message.stage();
  assignment.keep_outputs = message.keep_outputs();
  return assignment;
}

absl::StatusOr<StageReport> FromWire(const v1::StageStatus& message) {
  StageReport report;
  switch (message.state()) {
    case v1::StageStatus::FETCHING:
      report.state = StageState::kFetching;
      break;
    case v1::StageStatus::READY:
      report.state = StageState::kReady;
      break;
    case v1::StageStatus::FAILED:
      report.state = StageState::kFailed;
      break;
    default:
      return WrongField("state",
                        absl::StrCat("is ", static_cast<int>(message.state()), ", unknown here"));
  }
  RETURN_IF_ERROR(CheckRange("epoch", message.epoch(), 0, kMaxCount));
  RETURN_IF_ERROR(CheckRange("bytes_total", message.bytes_total(), 0, kMaxCount));
  RETURN_IF_ERROR(CheckRange("bytes_held", message.bytes_held(), 0, message.bytes_total()));
  RETURN_IF_ERROR(CheckRange("bytes_fetched", message.bytes_fetched(), 0, message.bytes_held()));
  report.epoch = Epoch{message.epoch()};
  report.bytes_held = message.bytes_held();
  report.bytes_total = message.bytes_total();
  report.bytes_fetched = message.bytes_fetched();
  report.message = Printable(message.message(), kMaxMessageBytes);
  report.kept = message.kept();
  RETURN_IF_ERROR(CheckRange("fault", static_cast<uint64_t>(message.fault()), 0,
                             static_cast<uint64_t>(StageFault::kDownstream)));
  report.fault = static_cast<StageFault>(message.fault());
  return report;
}

absl::StatusOr<StageCounters> FromWire(const v1::Heartbeat& message) {
  const std::pair<absl::string_view, uint64_t> fields[] = {
      {"epoch", message.epoch()},         {"steps", message.steps()},
      {"tokens", message.tokens()},       {"compute_micros", message.compute_micros()},
      {"bytes_in", message.bytes_in()},   {"bytes_out", message.bytes_out()},
      {"sequences", message.sequences()}, {"kv_tokens_total", message.kv_tokens_total()},
  };
  for (const auto& [field, value] : fields) RETURN_IF_ERROR(CheckRange(field, value, 0, kMaxCount));
  RETURN_IF_ERROR(
      CheckRange("kv_tokens_used", message.kv_tokens_used(), 0, message.kv_tokens_total()));
  StageCounters counters;
  counters.epoch = Epoch{message.epoch()};
  counters.steps = message.steps();
  counters.tokens = message.tokens();
  counters.compute_micros = message.compute_micros();
  counters.bytes_in = message.bytes_in();
  counters.bytes_out = message.bytes_out();
  counters.sequences = message.sequences();
  counters.kv_tokens_used = message.kv_tokens_used();
  counters.kv_tokens_total = message.kv_tokens_total();
  return counters;
}

}  // namespace efedllm
