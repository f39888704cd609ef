#include "app/ctl_eval_text_coded.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "app/coded_model.h"
#include "app/coded_model_choice.h"
#include "app/text_input.h"
#include "common/status_macros.h"
#include "coordinator/boundary_calibration_text.h"
#include "model/model_config.h"
#include "model/text_quality.h"

namespace efedllm {
namespace {

constexpr uint32_t kMostContext = 8192;
constexpr uint32_t kDecodedWindow = 256;
constexpr SequenceId kReferenceSequence{1}, kFirstSequence{2};

bool AddsBos(const Tokenizer& tokenizer) {
  const std::vector<int32_t> special = tokenizer.Encode("", {.add_special = true});
  return !special.empty() && special[0] == tokenizer.bos();
}

struct CodedText {
  TextWindows text;
  LocalModelOptions options;
};

// The text as it will be fed, and a model that has room for it twice, coded and not.
absl::StatusOr<CodedText> PrepareText(const ModelFile& file, const std::string& text_path,
                                      uint32_t context, const CodedTextFlags& flags) {
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(file));
  ASSIGN_OR_RETURN(const std::string text, ReadText(text_path));
  CodedText result;
  ASSIGN_OR_RETURN(result.options.stages, EqualStages(config.layers, flags.stages));
  uint32_t length = context == 0 ? std::min(config.context, kMostContext) : context;
  ASSIGN_OR_RETURN(result.text, CutDocuments(text, file, length));
  if (flags.batch > 0) {
    ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(file));
    if (context == 0) length = std::min(length, kDecodedWindow);
    ASSIGN_OR_RETURN(result.text,
                     CutForBatches(result.text, tokenizer->bos(), length, flags.batch));
  }
  result.options.context = length;
  result.options.max_sequences = std::max(flags.batch, 1u);
  result.options.kv_tokens = uint64_t{length} * (1 + result.options.max_sequences);
  return result;
}

struct CodedResult {
  Divergence divergence;
  uint64_t f16_bytes = 0;
  double bytes_per_row = 0, payload_per_row = 0, plain_share = 0;  // means over the boundaries
  nlohmann::json boundaries;
};

CodedResult Summarize(const Divergence& divergence, const CodedModel& coded,
                      const std::vector<std::optional<BoundaryCoding>>& codings, size_t d_model) {
  CodedResult result;
  result.divergence = divergence;
  result.f16_bytes = 2 * d_model;
  result.boundaries = nlohmann::json::array();
  const double count = static_cast<double>(coded.boundaries().size());
  for (size_t i = 0; i < coded.boundaries().size(); ++i) {
    const BoundaryTraffic& traffic = coded.traffic()[i];
    result.bytes_per_row += traffic.bytes_per_row() / count;
    result.payload_per_row += traffic.payload_per_row() / count;
    result.plain_share += traffic.plain_share() / count;
    result.boundaries.push_back({{"after_layers", coded.boundaries()[i]},
                                 {"codec", codings[i]->Label()},
                                 {"bytes_per_token", traffic.bytes_per_row()},
                                 {"payload_bytes_per_token", traffic.payload_per_row()},
                                 {"plain_row_share", traffic.plain_share()}});
  }
  return result;
}

void Print(const CodedResult& result, const CodedTextFlags& flags, bool json) {
  const Divergence& divergence = result.divergence;
  if (json) {
    const nlohmann::json answer = {{"mean_kl", divergence.mean_kl},
                                   {"max_kl", divergence.max_kl},
                                   {"perplexity", divergence.model.perplexity},
                                   {"bytes_per_token_hop", result.bytes_per_row},
                                   {"f16_bytes_per_token_hop", result.f16_bytes},
                                   {"payload_bytes_per_token_hop", result.payload_per_row},
                                   {"top1_agreement", divergence.top1_agreement},
                                   {"reference_perplexity", divergence.reference.perplexity},
                                   {"tokens", divergence.model.tokens},
                                   {"codec", flags.codec},
                                   {"stages", flags.stages},
                                   {"batch", flags.batch},
                                   {"plain_row_share", result.plain_share},
                                   {"boundaries", result.boundaries}};
    std::printf("%s\n", answer.dump().c_str());
    return;
  }
  std::printf(
      "mean KL         %.6g\nmax KL          %.6g\nsame top token  %.2f %%\n"
      "perplexity      %.5f ± %.5f\nuncoded         %.5f\ntokens          %llu\n"
      "bytes           %.1f a token and hop, %.1f of them payload; f16: %llu, so %.1f %%\n",
      divergence.mean_kl, divergence.max_kl, 100 * divergence.top1_agreement,
      divergence.model.perplexity, divergence.model.standard_error, divergence.reference.perplexity,
      static_cast<unsigned long long>(divergence.model.tokens), result.bytes_per_row,
      result.payload_per_row, static_cast<unsigned long long>(result.f16_bytes),
      100 * result.bytes_per_row / static_cast<double>(result.f16_bytes));
  for (const nlohmann::json& boundary : result.boundaries) {
    std::printf(
        "after layer %-3u %s, %.1f bytes, %.2f %% of the rows in a finer codec\n",
        boundary["after_layers"].get<uint32_t>(), boundary["codec"].get<std::string>().c_str(),
        boundary["bytes_per_token"].get<double>(), 100 * boundary["plain_row_share"].get<double>());
  }
}

}  // namespace

absl::StatusOr<TextWindows> CutForModel(const std::string& text, const Tokenizer& tokenizer,
                                        uint32_t length) {
  return CutText(tokenizer.Encode(text, {.add_special = false}),
                 AddsBos(tokenizer) ? tokenizer.bos() : -1, length);
}

absl::StatusOr<TextWindows> CutDocuments(const std::string& text, const ModelFile& file,
                                         uint32_t length) {
  if (!absl::StrContains(text, "%%%\n")) {
    ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(file));
    return CutForModel(text, *tokenizer, length);
  }
  WindowLimits limits;
  limits.context = length;
  limits.tokens = std::numeric_limits<uint64_t>::max();
  ASSIGN_OR_RETURN(TokenWindows documents, CutWindows(file, text, limits));
  TextWindows windows;
  for (std::vector<int32_t>& window : documents.windows) {
    if (window.size() >= 2) windows.windows.push_back(std::move(window));
  }
  return windows;
}

absl::StatusOr<TextWindows> CutForBatches(const TextWindows& text, int32_t bos, uint32_t length,
                                          uint32_t batch) {
  std::vector<int32_t> tokens;
  bool begins = true;  // each with BOS
  for (const std::vector<int32_t>& window : text.windows) begins = begins && window[0] == bos;
  for (const std::vector<int32_t>& window : text.windows) {
    tokens.insert(tokens.end(), window.begin() + (begins ? 1 : 0), window.end());
  }
  const uint64_t own = std::min<uint64_t>(length - (begins ? 1 : 0), tokens.size() / batch);
  if (own < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the text has ", tokens.size(), " tokens: too few for ", batch, " sequences at once"));
  }
  const uint64_t windows = tokens.size() / own / batch * batch;
  return CutText(absl::MakeConstSpan(tokens).first(windows * own), begins ? bos : -1,
                 static_cast<uint32_t>(own) + (begins ? 1 : 0));
}

absl::Status RunCodedKl(const LocalFlags& local, const std::string& text_path, uint32_t context,
                        const CodedTextFlags& flags) {
  ASSIGN_OR_RETURN(const CodecChoice choice, CodecChoice::Parse(flags.codec));
  if (flags.stages < 2) {
    return absl::InvalidArgumentError("--stages: with one stage nothing is coded; use 2 or more");
  }
  ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(local.model));
  ASSIGN_OR_RETURN(const CodedText prepared, PrepareText(file, text_path, context, flags));
  BoundaryBases bases;
  if (choice.needs_bases()) {
    std::vector<uint32_t> boundaries;
    boundaries.reserve(flags.stages);
    for (const LayerRange& stage : prepared.options.stages) {
      if (stage.first > 0) boundaries.push_back(stage.first);
    }
    ASSIGN_OR_RETURN(bases, FindBases(file, std::move(boundaries), local, flags.state_dir));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalRun> run, OpenLocal(local, prepared.options));
  LocalModel& model = *run->model;
  CodedModel coded(model, bases);
  const std::vector<std::optional<BoundaryCoding>> codings =
      choice.ForAll(coded, model.config().d_model);
  RETURN_IF_ERROR(coded.Use(codings));
  std::unique_ptr<LogitsSource> source;
  if (flags.batch == 0) {
    source = std::make_unique<ModelLogits>(model, kFirstSequence);
  } else {
    source = std::make_unique<DecodedLogits>(model, prepared.text, flags.batch, kFirstSequence);
  }
  CodedLogits coded_source(*source, coded);
  ModelLogits reference(model, kReferenceSequence);
  ASSIGN_OR_RETURN(const Divergence divergence,
                   MeasureDivergence(coded_source, reference, prepared.text));
  Print(Summarize(divergence, coded, codings, model.config().d_model), flags, local.json);
  return absl::OkStatus();
}

void AddCodedTextFlags(CLI::App& command, CodedTextFlags& flags) {
  command.add_option("--codec", flags.codec,
                     absl::StrCat("Code the activations between --stages, and compare with the "
                                  "model as it is:\n",
                                  kCodecNames));
  command
      .add_option("--stages", flags.stages,
                  "With --codec: stages that the layers are split into, as evenly as possible")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  command
      .add_option("--batch", flags.batch,
                  "With --codec: measure frames of decoding, one token of each of so many\n"
                  "sequences; 0: frames of prompts, up to 512 tokens")
      ->check(CLI::Range(0u, 64u))
      ->capture_default_str();
  command.add_option(
      "--state-dir", flags.state_dir,
      "With --codec: whose bases/ has what is calibrated; default: the coordinator's");
}

}  // namespace efedllm
