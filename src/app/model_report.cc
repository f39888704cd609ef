#include "app/model_report.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "layers/compute.h"
#include "layers/kernels/kernel_table.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "tensor/dtype.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

std::string TextOf(const ModelFile& file, absl::string_view key) {
  const absl::StatusOr<absl::string_view> text = file.GetString(key);
  return text.ok() ? std::string(*text) : "";
}

void AddProblem(const absl::Status& status, ModelReport& report) {
  if (status.ok()) return;
  const std::string problem(status.message());
  for (const std::string& known : report.problems) {
    if (known == problem) return;
  }
  report.problems.push_back(problem);
}

void AddConfig(const ModelFile& file, ModelReport& report) {
  const absl::StatusOr<ModelConfig> config = ModelConfigFromFile(file);
  AddProblem(config.status(), report);
  if (!config.ok()) return;
  report.config = *config;
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
    KvReport kv{std::string(KvTypeName(type)), 0};
    if (config->head_dim % KvBlockValues(type) == 0) {
      kv.bytes_per_token =
          uint64_t{config->layers} * config->kv_heads * 2 * KvBytes(type, config->head_dim);
    }
    report.kv.push_back(std::move(kv));
  }
  AddProblem(CheckModelTensors(*config, file), report);
  const auto stage = StageTensors(*config, file, {0, config->layers});
  const auto head = HeadTensors(*config, file);
  const auto embedding = EmbeddingTensor(*config, file);
  if (!stage.ok() || !head.ok() || !embedding.ok()) return;
  for (const TensorSpec& spec : *stage) report.packed_bytes += PackedBytes(spec);
  report.packed_bytes += PackedBytes(head->norm) + PackedBytes(head->weight);
  report.embedding_bytes = embedding->bytes();
}

void AddTexts(const ModelFile& file, ModelReport& report) {
  report.template_text = TextOf(file, "tokenizer.chat_template");
  const auto tokenizer = Tokenizer::Create(file);
  AddProblem(tokenizer.status(), report);
  if (!tokenizer.ok()) return;
  report.tokenizer =
      TokenizerReport{Printable(TextOf(file, "tokenizer.ggml.model")),
                      Printable(TextOf(file, "tokenizer.ggml.pre")), (*tokenizer)->vocab_size(),
                      (*tokenizer)->bos(), (*tokenizer)->eos()};
  const auto chat_template = ChatTemplate::ForModel(file, **tokenizer);
  AddProblem(chat_template.status(), report);
  if (!chat_template.ok()) return;
  report.template_family = std::string(chat_template->family());
  report.template_is_interpreted = chat_template->is_interpreted();
}

nlohmann::json ConfigJson(const ModelConfig& config) {
  return {{"layers", config.layers},      {"d_model", config.d_model},
          {"heads", config.heads},        {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},  {"d_ffn", config.d_ffn},
          {"experts", config.experts},    {"experts_used", config.experts_used},
          {"vocab", config.vocab},        {"context", config.context},
          {"window", config.window},      {"rope_base", config.rope.base},
          {"rope_dims", config.rope.dims}};
}

nlohmann::json TypesJson(const ModelSummary& summary) {
  nlohmann::json types = nlohmann::json::array();
  for (const TypeSummary& type : summary.types) {
    types.push_back({{"type", type.type},
                     {"tensors", type.tensors},
                     {"parameters", type.parameters},
                     {"bytes", type.bytes},
                     {"supported", type.supported},
                     {"how", HowItRuns(type)}});
  }
  return types;
}

nlohmann::json TensorsJson(const ModelFile& file) {
  nlohmann::json tensors = nlohmann::json::array();
  for (const ModelTensor& tensor : file.tensors()) {
    tensors.push_back({{"name", Printable(tensor.name)},
                       {"shape", tensor.shape},
                       {"type", std::string(GgufTypeName(tensor.gguf_type))},
                       {"bytes", tensor.size_bytes()}});
  }
  return tensors;
}

}  // namespace

std::string HowItRuns(const TypeSummary& type) {
  if (!type.supported) return "can't be computed with";
  if (type.type == "F32" || type.type == "F16" || type.type == "BF16") {
    return "f32 activations, fused multiply-add";
  }
  return "int8 activations in blocks of 32";
}

ModelReport MakeModelReport(const std::string& path, const ModelFile& file) {
  ModelReport report;
  report.path = path;
  for (const ModelPart& part : file.parts()) report.parts.push_back(part.path);
  report.file_bytes = file.file_bytes();
  report.summary = SummarizeModel(file);
  AddConfig(file, report);
  AddTexts(file, report);
  const absl::StatusOr<Compute> compute = Compute::Create(0, "auto");
  if (compute.ok()) report.kernels = compute->kernels->name;
  return report;
}

nlohmann::json ModelReportJson(const ModelReport& report, const ModelFile& file) {
  nlohmann::json kv = nlohmann::json::object();
  for (const KvReport& type : report.kv) {
    if (type.bytes_per_token > 0) kv[type.type] = type.bytes_per_token;
  }
  nlohmann::json json = {{"path", report.path},
                         {"files", report.parts},
                         {"file_bytes", report.file_bytes},
                         {"architecture", report.summary.architecture},
                         {"name", report.summary.name},
                         {"quantization", report.summary.quantization},
                         {"parameters", report.summary.parameters},
                         {"tensor_bytes", report.summary.bytes},
                         {"types", TypesJson(report.summary)},
                         {"tensors", TensorsJson(file)},
                         {"kv_bytes_per_token", kv},
                         {"packed_bytes", report.packed_bytes},
                         {"embedding_bytes", report.embedding_bytes},
                         {"kernels", report.kernels},
                         {"chat_template", report.template_text},
                         {"chat_template_family", report.template_family},
                         {"chat_template_interpreted", report.template_is_interpreted},
                         {"supported", report.problems.empty()},
                         {"problems", report.problems}};
  json["config"] = report.config ? ConfigJson(*report.config) : nlohmann::json();
  json["tokenizer"] = nlohmann::json();
  if (report.tokenizer) {
    json["tokenizer"] = {{"model", report.tokenizer->model},
                         {"pre", report.tokenizer->pre},
                         {"tokens", report.tokenizer->tokens},
                         {"bos", report.tokenizer->bos},
                         {"eos", report.tokenizer->eos}};
  }
  return json;
}

}  // namespace efedllm
