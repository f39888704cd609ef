#include "text/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/bpe_tokenizer.h"
#include "text/spm_tokenizer.h"

namespace efedllm {
namespace {

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateByModel(const ModelFile& file) {
  if (file.FindValue("tokenizer.ggml.model") == nullptr) {
    return absl::InvalidArgumentError(
        "the file has no tokenizer (metadata key tokenizer.ggml.model): convert the model anew");
  }
  ASSIGN_OR_RETURN(const absl::string_view model, file.GetString("tokenizer.ggml.model"));
  if (model == "llama") return SpmTokenizer::Create(file);
  if (model == "gpt2") return BpeTokenizer::Create(file);
  return absl::UnimplementedError(absl::StrCat(
      "the tokenizer model \"", Printable(model),
      "\" is not supported; supported are \"llama\" (SentencePiece) and \"gpt2\" (BPE)"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const ModelFile& file) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = CreateByModel(file);
  if (!tokenizer.ok()) return file.About(tokenizer.status());
  return tokenizer;
}

std::vector<int32_t> Tokenizer::Encode(absl::string_view text,
                                       const TokenizeOptions& options) const {
  return EncodePrompt({{std::string(text), options.parse_special}}, options.add_special);
}

}  // namespace efedllm
