#include "app/ctl_model.h"

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "app/local_run.h"
#include "app/model_report.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "tensor/dtype.h"

namespace efedllm {
namespace {

struct InspectFlags {
  std::string model;
  bool json = false;
  bool tensors = false;
  bool chat_template = false;
};

void PrintLine(const std::string& label, const std::string& text) {
  absl::PrintF("%-15s %s\n", label, text);
}

void PrintConfig(const ModelConfig& config) {
  std::string shape =
      absl::StrCat(config.layers, " layers, width ", config.d_model, ", ", config.heads,
                   " heads of ", config.head_dim, ", ", config.kv_heads,
                   " of them KV heads, feed-forward ", config.d_ffn, ", vocabulary ", config.vocab);
  if (config.HasExperts()) {
    absl::StrAppend(&shape, ", ", config.experts, " experts of which ", config.experts_used,
                    " work");
  }
  PrintLine("shape", shape);
  std::string context = absl::StrCat(config.context, " tokens, RoPE base ", config.rope.base);
  if (config.window > 0) absl::StrAppend(&context, ", window ", config.window);
  PrintLine("context", context);
}

void PrintTexts(const ModelReport& report) {
  if (report.tokenizer) {
    const TokenizerReport& tokenizer = *report.tokenizer;
    const auto special = [](int32_t id) { return id < 0 ? std::string("none") : absl::StrCat(id); };
    PrintLine("tokenizer", absl::StrCat(tokenizer.model, tokenizer.pre.empty() ? "" : ", ",
                                        tokenizer.pre, ", ", tokenizer.tokens, " tokens, BOS ",
                                        special(tokenizer.bos), ", EOS ", special(tokenizer.eos)));
  }
  std::string chat = report.template_family.empty() ? "can't be run" : report.template_family;
  if (report.template_text.empty()) absl::StrAppend(&chat, ", the model has none of its own");
  if (report.template_is_interpreted) absl::StrAppend(&chat, ", its own text interpreted");
  PrintLine("chat template", chat);
}

void PrintMemory(const ModelReport& report) {
  if (!report.config) return;
  PrintLine("weights", absl::StrCat(FormatBytes(report.packed_bytes),
                                    " in the kernels' form, the embedding's ",
                                    FormatBytes(report.embedding_bytes), " read from the file"));
  std::vector<std::string> kv;
  for (const KvReport& type : report.kv) {
    if (type.bytes_per_token == 0) continue;
    kv.push_back(absl::StrCat(type.type, " ", FormatBytes(type.bytes_per_token), " a token, ",
                              FormatBytes(type.bytes_per_token * report.config->context),
                              " the context"));
  }
  PrintLine("KV", absl::StrJoin(kv, "; "));
}

void PrintTypes(const ModelReport& report) {
  PrintLine("kernels", absl::StrCat(report.kernels, " on this CPU"));
  absl::PrintF("\n%-9s %8s %11s %11s  %s\n", "TYPE", "TENSORS", "PARAMETERS", "SIZE",
               "HOW IT RUNS");
  for (const TypeSummary& type : report.summary.types) {
    absl::PrintF("%-9s %8d %11s %11s  %s\n", type.type, type.tensors,
                 FormatParameters(type.parameters), FormatBytes(type.bytes), HowItRuns(type));
  }
}

void PrintTensors(const ModelFile& file) {
  absl::PrintF("\n%-36s %-9s %11s  %s\n", "TENSOR", "TYPE", "SIZE", "SHAPE");
  for (const ModelTensor& tensor : file.tensors()) {
    absl::PrintF("%-36s %-9s %11s  [%s]\n", Printable(tensor.name), GgufTypeName(tensor.gguf_type),
                 FormatBytes(tensor.size_bytes()), absl::StrJoin(tensor.shape, ", "));
  }
}

void PrintReport(const ModelReport& report) {
  const ModelSummary& summary = report.summary;
  PrintLine("model", report.path);
  if (!summary.name.empty()) PrintLine("name", summary.name);
  PrintLine("architecture",
            absl::StrCat(summary.architecture.empty() ? "unknown" : summary.architecture,
                         report.config ? "" : " (can't be run)"));
  PrintLine("size",
            absl::StrCat(FormatParameters(summary.parameters), " parameters, ",
                         summary.quantization, ", ", FormatBytes(report.file_bytes), " in ",
                         report.parts.size(), report.parts.size() == 1 ? " file" : " files"));
  if (report.config) PrintConfig(*report.config);
  PrintTexts(report);
  PrintMemory(report);
  PrintTypes(report);
}

absl::Status RunInspect(const InspectFlags& flags) {
  ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(flags.model));
  const ModelReport report = MakeModelReport(flags.model, file);
  if (flags.chat_template) {
    if (report.template_text.empty()) {
      return absl::NotFoundError(absl::StrCat(flags.model, " has no chat template"));
    }
    std::printf("%s\n", report.template_text.c_str());
    return absl::OkStatus();
  }
  if (flags.json) {
    using Json = nlohmann::json;
    std::printf(
        "%s\n",
        ModelReportJson(report, file).dump(2, ' ', false, Json::error_handler_t::replace).c_str());
    return absl::OkStatus();
  }
  PrintReport(report);
  if (flags.tensors) PrintTensors(file);
  for (const std::string& problem : report.problems) {
    absl::PrintF("\nnot supported: %s\n", problem);
  }
  return absl::OkStatus();
}

}  // namespace

void AddModelCommand(CLI::App& root, int& exit_code) {
  CLI::App* model = root.add_subcommand("model", "Look into model files, and make them smaller");
  model->require_subcommand(1);
  auto flags = std::make_shared<InspectFlags>();
  CLI::App* command = model->add_subcommand(
      "inspect",
      "Show what a model is, what memory it takes, what will run how on this CPU, and what can't\n"
      "be run. The exit code is 0 whenever the file can be read, supported or not: see\n"
      "\"supported\" and \"problems\" in --json.");
  command->footer("Example: efedllm-ctl model inspect --model models/seedling/seedling-q8_0.gguf");
  command
      ->add_option("--model", flags->model,
                   "GGUF file (any part of a split one), or a Hugging Face folder")
      ->required();
  command->add_flag("--tensors", flags->tensors, "List all tensors");
  command->add_flag("--template", flags->chat_template, "Print the chat template's text alone");
  command->add_flag("--json", flags->json, "Print all of it as one JSON object");
  OnCommand(*command, exit_code, [flags] { return RunInspect(*flags); });
  AddModelCompressCommand(*model, exit_code);
}

}  // namespace efedllm
