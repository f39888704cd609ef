#include "app/ctl_eval.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "app/ctl_eval_parts.h"
#include "app/local_run.h"
#include "common/status_macros.h"
#include "model/local_model.h"

namespace efedllm {
namespace {

constexpr size_t kTableRows = 10;

struct EvalFlags {
  LocalFlags local;
  std::vector<int32_t> tokens;
  uint32_t chunk = 0;
};

struct Evaluation {
  std::vector<float> last_logits;
  std::vector<size_t> argmax;  // of each position
};

absl::StatusOr<Evaluation> Evaluate(const EvalFlags& flags) {
  LocalModelOptions options;
  options.kv_tokens = flags.tokens.size();
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalRun> run, OpenLocal(flags.local, options));
  Evaluation evaluation;
  bool finite = true;
  RETURN_IF_ERROR(
      run->model->Evaluate(flags.tokens, flags.chunk, [&](size_t, absl::Span<const float> logits) {
        for (const float logit : logits) finite = finite && std::isfinite(logit);
        evaluation.argmax.push_back(ArgMax(logits));
        if (evaluation.argmax.size() == flags.tokens.size()) {
          evaluation.last_logits.assign(logits.begin(), logits.end());
        }
      }));
  if (!finite) {
    return absl::DataLossError(
        absl::StrCat(flags.local.model,
                     ": the logits are not finite: the weights are damaged, download them again"));
  }
  return evaluation;
}

void PrintTable(const std::vector<float>& logits) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t rows = std::min(kTableRows, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(rows), order.end(),
      [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - double{logits[order[0]]});
  std::printf("%8s  %12s  %11s\n", "token", "logit", "probability");
  for (size_t i = 0; i < rows; ++i) {
    const double logit = logits[order[i]];
    std::printf("%8zu  %12.6f  %10.4f%%\n", order[i], logit,
                100 * std::exp(logit - double{logits[order[0]]}) / sum);
  }
}

absl::Status RunLogits(const EvalFlags& flags) {
  ASSIGN_OR_RETURN(const Evaluation evaluation, Evaluate(flags));
  if (flags.local.json) {
    // A float as double prints with all the digits that it needs to be read back exactly.
    const nlohmann::json answer = {{"logits", evaluation.last_logits},
                                   {"argmax", evaluation.argmax}};
    std::printf("%s\n", answer.dump().c_str());
  } else {
    PrintTable(evaluation.last_logits);
  }
  return absl::OkStatus();
}

void AddLogitsCommand(CLI::App& eval, int& exit_code) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command = eval.add_subcommand(
      "logits",
      "Feed tokens to a model and show what it expects next: the same bits for any number of\n"
      "threads, any chunk and any kernels, and the same that a cluster computes");
  command->footer(
      "Example: efedllm-ctl eval logits --model models/seedling/seedling-q8_0.gguf "
      "--tokens 1,259,512");
  AddModelFlags(*command, flags->local, "f32");
  command
      ->add_option("--tokens", flags->tokens,
                   "Token ids with commas between them (efedllm-ctl tokenize makes them)")
      ->required()
      ->check(CLI::Validator(
          [](std::string& id) { return id.empty() ? "a token id is empty" : ""; }, "", "nonempty"))
      ->delimiter(',');
  command->add_option("--chunk", flags->chunk, "Tokens in one step; 0: as many as fit")
      ->capture_default_str();
  AddThreadsFlag(*command, flags->local);
  AddJsonFlag(*command, flags->local,
              "{\"logits\": [of the last position], \"argmax\": [of each position]}");
  OnCommand(*command, exit_code, [flags] { return RunLogits(*flags); });
}

}  // namespace

void AddEvalCommand(CLI::App& root, int& exit_code) {
  CLI::App* eval = root.add_subcommand(
      "eval",
      "Judge a model on this machine, without a cluster: what it expects and what it knows");
  eval->require_subcommand(1);
  AddLogitsCommand(*eval, exit_code);
  AddPerplexityCommand(*eval, exit_code);
  AddKlCommand(*eval, exit_code);
  AddTasksCommand(*eval, exit_code);
}

}  // namespace efedllm
