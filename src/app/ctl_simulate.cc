#include "app/ctl_simulate.h"

#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "cluster/kv_rule.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/weights.h"
#include "simulator/cluster_json.h"
#include "simulator/presets.h"
#include "simulator/sim_report.h"
#include "simulator/simulation.h"

namespace efedllm {
namespace {

constexpr size_t kMaxFileBytes = size_t{8} << 20;

absl::StatusOr<SimModel> ReadModel(const std::string& path) {
  ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(path));
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(file));
  ASSIGN_OR_RETURN(const std::vector<TensorSpec> tensors,
                   StageTensors(config, file, {0, config.layers}));
  double bytes = 0;
  double weights = 0;
  for (const TensorSpec& tensor : tensors) {
    bytes += static_cast<double>(tensor.bytes());
    weights += static_cast<double>(tensor.rows) * static_cast<double>(tensor.cols);
  }
  SimModel model;
  model.name = config.name.empty() ? config.architecture : config.name;
  model.layers = config.layers;
  model.d_model = config.d_model;
  model.d_ffn = config.d_ffn;
  model.heads = config.heads;
  model.kv_heads = config.kv_heads;
  model.head_dim = config.head_dim;
  model.vocab = config.vocab;
  model.experts = config.experts;
  model.experts_used = config.experts_used;
  model.bytes_per_weight = bytes / weights;
  return model;
}

}  // namespace

std::string ClusterFileHelp() {
  return absl::StrCat(
      "A cluster file is JSON; config/cluster-example.json has a little of everything.\n"
      "  model        {\"preset\": NAME, \"weights\": TYPE}, or {\"gguf\": FILE}, or a shape: "
      "layers,\n"
      "               d_model, d_ffn, heads, kv_heads, head_dim, vocab, weights (q8_0, q4_0, ...)\n"
      "               or bytes_per_weight, experts, experts_used, kv_type\n"
      "               presets: ",
      ModelPresetNames(),
      "\n"
      "  coordinator  a node, whose rates are for the output head\n"
      "  nodes        [{name, count, preset, threads, memory, read_bytes_per_second,\n"
      "               int8_ops_per_second, f32_flops_per_second, link, medium, host, times}]\n"
      "               as `efedllm-ctl status --json` shows them of real ones; count makes many\n"
      "               presets: ",
      NodePresetNames(),
      "\n"
      "               times: [[rows, ms], ...], measured for all layers, instead of the rates\n"
      "  network      each node's access: {preset, delay_ms, jitter_ms, megabits_per_second};\n"
      "               link has the same for one node. Two accesses make a path.\n"
      "               presets: ",
      LinkPresetNames(),
      "\n"
      "  links        [{from, to, delay_ms, jitter_ms, megabits_per_second, reachable, "
      "both_ways}]\n"
      "               of pairs, by node's or group's name, or \"coordinator\"; not reachable: the\n"
      "               coordinator relays\n"
      "  media        [{name, megabits_per_second}]: radio channels that nodes share\n"
      "  hosts        [{name, cores}]: machines on which several nodes run\n"
      "  load         {streams, requests, prompt_tokens, output_tokens, arrivals_per_second};\n"
      "               tokens: a number or [least, most]; without arrivals each stream sends its\n"
      "               next request when the last is answered\n"
      "  scheduler    {max_sequences, max_step_tokens, context, layout, step_overhead_us, "
      "hop_overhead_us,\n"
      "               bytes_per_value}; layout: auto, chain, replicas: as the planner has them;\n"
      "               [11, 11]: a chain of the first nodes with so many layers each; even: of all\n"
      "  seed         of the random lengths, arrivals and jitter\n");
}

absl::Status RunSimulate(const SimulateFlags& flags) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(flags.cluster, kMaxFileBytes));
  const absl::StatusOr<SimSpec> spec = ParseClusterJson(text, ReadModel);
  if (!spec.ok()) {
    return absl::Status(spec.status().code(),
                        absl::StrCat(flags.cluster, ": ", spec.status().message()));
  }
  ASSIGN_OR_RETURN(const SimResult result, Simulate(*spec));
  if (!flags.plot.empty()) {
    RETURN_IF_ERROR(WriteFileAtomically(flags.plot, SimResultSvg(*spec, result), 0644));
  }
  const std::string out =
      flags.json ? SimResultJson(*spec, result).dump(2) + "\n" : SimResultText(*spec, result);
  std::fputs(out.c_str(), stdout);
  return absl::OkStatus();
}

}  // namespace efedllm
