// A vocabulary small enough to tokenize by hand.
#ifndef EFEDLLM_TESTS_TEXT_SMALL_VOCABULARY_H_
#define EFEDLLM_TESTS_TEXT_SMALL_VOCABULARY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "model/model_file.h"
#include "testing/metadata_builder.h"
#include "text/tokenizer.h"

namespace efedllm {

enum TokenType : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct SmallVocabulary {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;

  // <unk>, <s>, </s>, then the 256 bytes: byte b is token 3 + b.
  SmallVocabulary() {
    Add("<unk>", 0, kUnknown).Add("<s>", 0, kControl).Add("</s>", 0, kControl);
    for (int b = 0; b < 256; ++b) Add(absl::StrFormat("<0x%02X>", b), 0, kByte);
  }
  SmallVocabulary& Add(const std::string& text, float score, TokenType type = kNormal) {
    tokens.push_back(text);
    scores.push_back(score);
    types.push_back(type);
    return *this;
  }
  int32_t Id(const std::string& text) const {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] == text) return static_cast<int32_t>(i);
    }
    return -1;
  }
  MetadataBuilder File() const {
    MetadataBuilder file;
    file.Add("tokenizer.ggml.model", "llama")
        .Add("tokenizer.ggml.tokens", tokens)
        .Add("tokenizer.ggml.scores", scores)
        .Add("tokenizer.ggml.token_type", types);
    return file;
  }
};

inline absl::StatusOr<std::unique_ptr<Tokenizer>> MakeTokenizer(const MetadataBuilder& builder) {
  const std::string bytes = builder.Build();
  const auto file = ModelFile::Parse(BytesOf(bytes));
  if (!file.ok()) return file.status();
  return Tokenizer::Create(*file);
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_TEXT_SMALL_VOCABULARY_H_
