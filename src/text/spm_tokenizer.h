// SentencePiece's BPE as llama.cpp has it ("tokenizer.ggml.model" is "llama"): neighbours are
// merged in the order of the merged token's score, and what is no token in the end goes byte by
// byte.
#ifndef EFEDLLM_TEXT_SPM_TOKENIZER_H_
#define EFEDLLM_TEXT_SPM_TOKENIZER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace efedllm {

class SpmTokenizer final : public Tokenizer {
 public:
  // InvalidArgument: as Vocabulary::Load, or a byte without a token where no unknown token is.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufFile& file);

  std::vector<int32_t> EncodePrompt(absl::Span<const PromptPiece> pieces,
                                    bool add_special) const override;
  std::string Piece(int32_t token, bool special) const override;
  std::string Decode(const std::vector<int32_t>& tokens, bool remove_special,
                     bool unparse_special) const override;

  int32_t vocab_size() const override { return vocabulary_.size(); }
  int32_t bos() const override { return vocabulary_.bos(); }
  int32_t eos() const override { return vocabulary_.eos(); }
  bool IsEndOfGeneration(int32_t token) const override {
    return vocabulary_.IsEndOfGeneration(token);
  }
  size_t max_piece_bytes() const override { return vocabulary_.max_token_bytes(); }

 private:
  explicit SpmTokenizer(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  absl::Status IndexBytes();
  void EncodeText(absl::string_view text, bool space_prefix, std::vector<int32_t>& tokens) const;

  Vocabulary vocabulary_;
  std::array<int32_t, 256> byte_tokens_{};
  bool words_are_separate_ = false;  // no token goes over from a word into the space behind it
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_SPM_TOKENIZER_H_
