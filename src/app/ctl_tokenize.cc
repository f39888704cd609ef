#include "app/ctl_tokenize.h"

#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "app/text_input.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/model_file.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

struct TokenizeFlags {
  std::string model;
  std::string text_file;
  bool no_bos = false;
  bool parse_special = false;
  bool json = false;
};

void Print(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens, bool json) {
  if (json) {
    std::printf("%s\n", nlohmann::json{{"tokens", tokens}}.dump().c_str());
    return;
  }
  std::printf("%8s  %s\n", "id", "piece");
  for (const int32_t token : tokens) {
    const std::string piece = Printable(tokenizer.Piece(token, /*special=*/true));
    std::printf("%8d  \"%s\"\n", token, piece.c_str());
  }
}

absl::Status RunTokenize(const TokenizeFlags& flags) {
  ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(flags.model));
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(file));
  ASSIGN_OR_RETURN(const std::string text, ReadText(flags.text_file));
  TokenizeOptions options;
  options.add_special = !flags.no_bos;
  options.parse_special = flags.parse_special;
  Print(*tokenizer, tokenizer->Encode(text, options), flags.json);
  return absl::OkStatus();
}

}  // namespace

void AddTokenizeCommand(CLI::App& root, int& exit_code) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command =
      root.add_subcommand("tokenize", "Show which tokens a model's tokenizer makes of a text");
  command->add_option("--model", flags->model, "GGUF file, or Hugging Face folder")->required();
  command->add_option("--text-file", flags->text_file, "File with the text; - reads standard input")
      ->required();
  command->add_flag("--no-bos", flags->no_bos,
                    "Add no BOS (and no EOS), even where the vocabulary asks for it");
  command->add_flag("--parse-special", flags->parse_special,
                    "Take the names of special tokens in the text as those tokens");
  command->add_flag("--json", flags->json, "Print {\"tokens\": [...]} instead of a table");
  command->callback([flags, &exit_code] {
    const absl::Status status = RunTokenize(*flags);
    if (status.ok()) return;
    std::fprintf(stderr, "error: %s\n", std::string(status.message()).c_str());
    exit_code = 1;
  });
}

}  // namespace efedllm
