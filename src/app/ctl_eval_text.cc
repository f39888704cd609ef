// eval perplexity and eval kl: a model's predictions of a text.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "app/ctl_eval_parts.h"
#include "app/ctl_eval_text_coded.h"
#include "app/local_run.h"
#include "app/text_input.h"
#include "common/status_macros.h"
#include "model/logits_file.h"
#include "model/logits_source.h"
#include "model/text_quality.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

// As efedllm-coord's --context.
constexpr uint32_t kDefaultContext = 8192;

struct TextFlags {
  LocalFlags local;
  std::string text;
  uint32_t context = 0;
  std::string save_logits;  // perplexity
  std::string reference;    // kl, or:
  CodedTextFlags coded;
};

// A window that is as long as the model's context takes as much KV.
LocalModelOptions OptionsFor(const TextFlags& flags) {
  LocalModelOptions options;
  options.context = flags.context;
  options.most_context = kDefaultContext;
  return options;
}

absl::StatusOr<TextWindows> ReadWindows(const TextFlags& flags, const LocalRun& run) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(flags.text));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(run.file));
  return CutForModel(text, *tokenizer, run.model->options().context);
}

absl::Status RunPerplexity(const TextFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalRun> run, OpenLocal(flags.local, OptionsFor(flags)));
  ASSIGN_OR_RETURN(const TextWindows text, ReadWindows(flags, *run));
  ModelLogits source(*run->model);
  std::unique_ptr<LogitsWriter> writer;
  if (!flags.save_logits.empty()) {
    ASSIGN_OR_RETURN(writer, LogitsWriter::Create(flags.save_logits, text, source.vocab()));
  }
  ASSIGN_OR_RETURN(const Perplexity result,
                   MeasurePerplexity(source, text, [&](absl::Span<const float> logits) {
                     return writer == nullptr ? absl::OkStatus() : writer->Append(logits);
                   }));
  if (writer != nullptr) RETURN_IF_ERROR(writer->Finish());
  if (flags.local.json) {
    const nlohmann::json answer = {{"perplexity", result.perplexity},
                                   {"standard_error", result.standard_error},
                                   {"tokens", result.tokens},
                                   {"windows", text.windows.size()},
                                   {"context", run->model->options().context}};
    std::printf("%s\n", answer.dump().c_str());
  } else {
    std::printf("perplexity  %.5f ± %.5f\ntokens      %llu in %zu windows of up to %u\n",
                result.perplexity, result.standard_error,
                static_cast<unsigned long long>(result.tokens), text.windows.size(),
                run->model->options().context);
  }
  return absl::OkStatus();
}

void PrintDivergence(const Divergence& result, bool json) {
  if (json) {
    const nlohmann::json answer = {{"mean_kl", result.mean_kl},
                                   {"max_kl", result.max_kl},
                                   {"top1_agreement", result.top1_agreement},
                                   {"perplexity", result.model.perplexity},
                                   {"reference_perplexity", result.reference.perplexity},
                                   {"tokens", result.model.tokens}};
    std::printf("%s\n", answer.dump().c_str());
    return;
  }
  std::printf(
      "mean KL         %.6g\nmax KL          %.6g\nsame top token  %.2f %%\n"
      "perplexity      %.5f ± %.5f\nreference's     %.5f ± %.5f\ntokens          %llu\n",
      result.mean_kl, result.max_kl, 100 * result.top1_agreement, result.model.perplexity,
      result.model.standard_error, result.reference.perplexity, result.reference.standard_error,
      static_cast<unsigned long long>(result.model.tokens));
}

absl::Status RunKl(const TextFlags& flags) {
  if (flags.reference.empty() == flags.coded.codec.empty()) {
    return absl::InvalidArgumentError(
        "give either --reference, another model, or --codec, to code between stages");
  }
  if (!flags.coded.codec.empty()) {
    return RunCodedKl(flags.local, flags.text, flags.context, flags.coded);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalRun> run, OpenLocal(flags.local, OptionsFor(flags)));
  ASSIGN_OR_RETURN(const TextWindows text, ReadWindows(flags, *run));
  ModelLogits source(*run->model);
  std::unique_ptr<LocalRun> reference_run;
  std::unique_ptr<LogitsSource> reference;
  if (IsLogitsFile(flags.reference)) {
    ASSIGN_OR_RETURN(reference, FileLogits::Open(flags.reference, text));
  } else {
    LocalFlags local = flags.local;
    local.model = flags.reference;
    LocalModelOptions options;
    options.context = run->model->options().context;
    ASSIGN_OR_RETURN(reference_run, OpenLocal(local, options));
    reference = std::make_unique<ModelLogits>(*reference_run->model);
  }
  ASSIGN_OR_RETURN(const Divergence result, MeasureDivergence(source, *reference, text));
  PrintDivergence(result, flags.local.json);
  return absl::OkStatus();
}

void AddTextFlags(CLI::App& command, TextFlags& flags) {
  AddModelFlags(command, flags.local, "f32");
  command.add_option("--text", flags.text, "File with the text; - reads standard input")
      ->required();
  command
      .add_option("--context", flags.context,
                  "Tokens in a window; 0: the model's context, at most 8192")
      ->check(CLI::Range(0u, 1u << 24))
      ->capture_default_str();
  AddThreadsFlag(command, flags.local);
}

}  // namespace

void AddPerplexityCommand(CLI::App& eval, int& exit_code) {
  auto flags = std::make_shared<TextFlags>();
  CLI::App* command = eval.add_subcommand(
      "perplexity",
      "How well a model predicts a text: exp of the mean of -ln p(token | those before it).\n"
      "A text that fits into --context is one window; a longer one is cut into windows that don't\n"
      "overlap. Each window begins with BOS where the model adds one; every token behind the\n"
      "window's first is predicted and counts.");
  command->footer("Example: efedllm-ctl eval perplexity --model model.gguf --text novel.txt");
  AddTextFlags(*command, *flags);
  command->add_option("--save-logits", flags->save_logits,
                      "Write the logits here, for eval kl --reference: 4 bytes x vocabulary for\n"
                      "each token");
  AddJsonFlag(*command, flags->local,
              "{\"perplexity\", \"standard_error\", \"tokens\", \"windows\", \"context\"}");
  OnCommand(*command, exit_code, [flags] { return RunPerplexity(*flags); });
}

void AddKlCommand(CLI::App& eval, int& exit_code) {
  auto flags = std::make_shared<TextFlags>();
  CLI::App* command = eval.add_subcommand(
      "kl",
      "How far a model's predictions of a text are from a reference's: the Kullback-Leibler\n"
      "divergence in nats of each predicted token's distribution, its mean and its maximum, and\n"
      "how often both hold the same token for the likeliest. Windows as in eval perplexity.\n"
      "With --codec the model's stages hand coded activations on, and the reference is the same\n"
      "model without; bytes are those of a hop's frames, with header and checksum.");
  command->footer(
      "Examples: efedllm-ctl eval kl --model m-q4_0.gguf --reference m-f16.gguf --text novel.txt\n"
      "          efedllm-ctl eval kl --model m.gguf --text novel.txt --stages 4 --codec balanced");
  AddTextFlags(*command, *flags);
  command->add_option("--reference", flags->reference,
                      "Another model of the same vocabulary, or logits of this text that eval\n"
                      "perplexity --save-logits wrote");
  AddCodedTextFlags(*command, flags->coded);
  AddJsonFlag(*command, flags->local,
              "{\"mean_kl\", \"max_kl\", \"top1_agreement\", \"perplexity\",\n"
              "\"reference_perplexity\", \"tokens\"}; with --codec also \"bytes_per_token_hop\",\n"
              "\"f16_bytes_per_token_hop\", and what became of each boundary");
  OnCommand(*command, exit_code, [flags] { return RunKl(*flags); });
}

}  // namespace efedllm
