// model compress: a smaller model from a model, and what it is worth.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "app/ctl_model.h"
#include "app/local_run.h"
#include "app/model_compression.h"
#include "app/progress_line.h"
#include "app/text_input.h"
#include "common/machine.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

constexpr uint32_t kWindow = 256;
// Of the text that isn't used for calibration.
constexpr double kHeldOutShare = 0.25;
constexpr size_t kLeastTokens = 1024;

struct CompressFlags {
  std::string model, text, budget, out, method = "svd", kernels = "auto";
  int threads = 0;
  uint32_t tokens = 16384;
  bool json = false;
};

// The first tokens of the text to calibrate with, and what comes behind them to judge by.
absl::Status CutTexts(const CompressFlags& flags, const ModelFile& file,
                      CompressionOptions& options) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(flags.text));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(file));
  const std::vector<int32_t> special = tokenizer->Encode("", {.add_special = true});
  const bool adds_bos = !special.empty() && special[0] == tokenizer->bos();
  const int32_t bos = adds_bos ? tokenizer->bos() : -1;
  const std::vector<int32_t> tokens = tokenizer->Encode(text, {.add_special = false});
  if (tokens.size() < kLeastTokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--calibrate ", flags.text, " has ", tokens.size(), " tokens; at least ", kLeastTokens,
        " are needed, and some 10,000 are better: give more text of the kind that the model is "
        "for"));
  }
  const auto used =
      absl::MakeConstSpan(tokens).first(std::min<size_t>(tokens.size(), flags.tokens));
  const auto held_out = static_cast<size_t>(kHeldOutShare * static_cast<double>(used.size()));
  ASSIGN_OR_RETURN(
      const uint64_t context,
      file.GetUint(absl::StrCat(*file.GetString("general.architecture"), ".context_length")));
  const auto window = static_cast<uint32_t>(std::min<uint64_t>(kWindow, context));
  ASSIGN_OR_RETURN(options.calibration, CutText(used.first(used.size() - held_out), bos, window));
  ASSIGN_OR_RETURN(options.held_out, CutText(used.last(held_out), bos, window));
  return absl::OkStatus();
}

absl::string_view WhatItIs(CompressionMethod method) {
  switch (method) {
    case CompressionMethod::kUniformSvd:
      return "plain truncated SVD, the same share of every matrix";
    case CompressionMethod::kPlainSvd:
      return "plain truncated SVD, ranks by measured loss";
    case CompressionMethod::kFactors:
      return "factors for the inputs, as precise as the file";
    case CompressionMethod::kSvd:
      return "factors, quantized or not; corrections of quantized matrices";
    case CompressionMethod::kQuantize:
      return "plain quantization, a type for each matrix";
    case CompressionMethod::kAny:
      return "all forms";
  }
  return "";
}

void PrintReport(const CompressFlags& flags, const CompressionReport& report) {
  const auto percent = [&](uint64_t bytes) {
    return 100.0 * static_cast<double>(bytes) / static_cast<double>(report.original_bytes);
  };
  absl::PrintF("%s: %s, %.1f %% of %s\n\n", flags.out, FormatBytes(report.written.bytes),
               percent(report.written.bytes), FormatBytes(report.original_bytes));
  absl::PrintF("%-13s %11s %7s %11s %11s  %s\n", "METHOD", "SIZE", "", "MEAN KL", "PERPLEXITY",
               "WHAT IT IS");
  absl::PrintF("%-13s %11s %6.1f%% %11s %11.4f  %s\n", "(the model)",
               FormatBytes(report.original_bytes), 100.0, "0", report.original_perplexity,
               "as it was");
  for (const MethodResult& result : report.methods) {
    const bool written = result.method == report.written.method;
    absl::PrintF("%-13s %11s %6.1f%% %11.4g %11.4f  %s%s\n", MethodName(result.method),
                 FormatBytes(result.bytes), percent(result.bytes), result.mean_kl,
                 result.perplexity, WhatItIs(result.method), written ? " (written)" : "");
  }
  std::map<std::string, int> forms;
  for (const CompressedMatrix& matrix : report.matrices) ++forms[matrix.form.Label()];
  absl::PrintF("\n%d matrices:", report.matrices.size());
  for (const auto& [label, count] : forms) absl::PrintF(" %d %s;", count, label);
  absl::PrintF("\ncalibrated on %d tokens, judged on %d others\n\n%s\n", report.calibration_tokens,
               report.held_out_tokens, report.recommendation);
}

absl::Status RunCompress(const CompressFlags& flags) {
  CompressionOptions options;
  ASSIGN_OR_RETURN(options.budget, ParseBudget(flags.budget));
  const std::optional<CompressionMethod> method = WritableMethod(flags.method);
  if (!method) {
    return absl::InvalidArgumentError(absl::StrCat("--method: unknown method \"", flags.method,
                                                   "\"; use svd, factors, quantize or any"));
  }
  options.method = *method;
  options.out = flags.out;
  std::error_code ignored;
  if (std::filesystem::equivalent(flags.model, flags.out, ignored)) {
    return absl::InvalidArgumentError("--out is the model itself; give another path");
  }
  ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(flags.model));
  if (const absl::Status status = CutTexts(flags, file, options); !status.ok()) return status;
  const int threads = flags.threads == 0 ? AvailableCpus() : flags.threads;
  ASSIGN_OR_RETURN(Compute compute, Compute::Create(threads, flags.kernels));
  absl::StatusOr<CompressionReport> report;
  {
    const ProgressLine line;
    options.progress = [&line](double share, absl::string_view what) { line.Show(share, what); };
    report = CompressModel(file, options, compute);
  }
  if (!report.ok()) return report.status();
  if (flags.json) {
    std::printf("%s\n", CompressionReportJson(*report).dump(2).c_str());
  } else {
    PrintReport(flags, *report);
  }
  return absl::OkStatus();
}

}  // namespace

void AddModelCompressCommand(CLI::App& model, int& exit_code) {
  auto flags = std::make_shared<CompressFlags>();
  CLI::App* command = model.add_subcommand(
      "compress",
      "Make a model smaller by low-rank factors that are best for the inputs its matrices see in "
      "a\n"
      "text, each matrix in the form that costs least for its bytes, and compare with plain SVD\n"
      "and plain quantization at equal bytes on a part of the text that was held out. Files with\n"
      "factors run in eFedLLM only. docs/model-compression.md says how it works and what it is\n"
      "worth.");
  command->footer(
      "Example: efedllm-ctl model compress --model m.gguf --calibrate text.txt --budget 0.8 --out "
      "small.gguf");
  command
      ->add_option("--model", flags->model,
                   "GGUF file (any part of a split one), or a Hugging Face folder")
      ->required();
  command
      ->add_option("--calibrate", flags->text,
                   "File with text of the kind that the model is for; - reads standard input. The\n"
                   "last quarter is held out to judge by")
      ->required();
  command
      ->add_option("--budget", flags->budget,
                   "A share of the file's size (0.8 or 80%), a size (200MB, 1.5GiB), or the most\n"
                   "mean KL in nats on the held-out text (kl=0.05)")
      ->required();
  command->add_option("--out", flags->out, "Path of the new GGUF")->required();
  command
      ->add_option("--method", flags->method,
                   "svd: low-rank factors, quantized or not, and corrections of quantized\n"
                   "matrices; factors: factors as precise as the file; quantize: plain\n"
                   "quantization; any: all forms")
      ->capture_default_str();
  command->add_option("--tokens", flags->tokens, "Of the text, at most so many")
      ->check(CLI::Range(1024u, 1u << 22))
      ->capture_default_str();
  command->add_option("--threads", flags->threads, "Threads that compute; 0: one per CPU")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command
      ->add_option("--kernels", flags->kernels,
                   "auto, or a set that this CPU runs: scalar, avx2 ...")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "Print the report as one JSON object");
  OnCommand(*command, exit_code, [flags] { return RunCompress(*flags); });
}

}  // namespace efedllm
