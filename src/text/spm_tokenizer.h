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
#include "text/pair_merger.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"
#include "text/vocabulary_tokenizer.h"

namespace efedllm {

class SpmTokenizer final : public VocabularyTokenizer {
 public:
  // InvalidArgument: as Vocabulary::Load, or a byte without a token where no unknown token is.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const ModelFile& file);

 private:
  using Merger = PairMerger<absl::string_view, float>;  // cost: minus the score

  explicit SpmTokenizer(Vocabulary vocabulary) : VocabularyTokenizer(std::move(vocabulary)) {}
  absl::Status IndexBytes();
  void EncodeText(absl::string_view text, bool behind_special,
                  std::vector<int32_t>& tokens) const override;
  void EncodeWord(absl::string_view word, Merger& merger, std::vector<int32_t>& tokens) const;
  std::string TextOf(absl::string_view entry) const override;

  std::array<int32_t, 256> byte_tokens_{};
  bool words_are_separate_ = false;  // no token goes over from a word into the space behind it
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_SPM_TOKENIZER_H_
