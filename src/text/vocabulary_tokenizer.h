// What all tokenizers with a Vocabulary share: everything but how a text without special tokens is
// cut.
#ifndef EFEDLLM_TEXT_VOCABULARY_TOKENIZER_H_
#define EFEDLLM_TEXT_VOCABULARY_TOKENIZER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace efedllm {

class VocabularyTokenizer : public Tokenizer {
 public:
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

 protected:
  explicit VocabularyTokenizer(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  // Appends the tokens of a text, which isn't empty. behind_special: it is the first, or a special
  // token stands before it.
  virtual void EncodeText(absl::string_view text, bool behind_special,
                          std::vector<int32_t>& tokens) const = 0;
  // The bytes that a normal token's entry stands for.
  virtual std::string TextOf(absl::string_view entry) const = 0;

  const Vocabulary vocabulary_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_VOCABULARY_TOKENIZER_H_
