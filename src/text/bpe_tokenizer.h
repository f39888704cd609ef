// Byte-level BPE as llama.cpp has it ("tokenizer.ggml.model" is "gpt2"): a pre-tokenizer cuts the
// text into words; in each the bytes are merged in the order of the file's list of merges.
#ifndef EFEDLLM_TEXT_BPE_TOKENIZER_H_
#define EFEDLLM_TEXT_BPE_TOKENIZER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/pair_merger.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"
#include "text/vocabulary_tokenizer.h"

namespace efedllm {

class BpeTokenizer final : public VocabularyTokenizer {
 public:
  // Unimplemented: an unknown pre-tokenizer, by name. InvalidArgument: as Vocabulary::Load, or no
  // merges, or a merge that isn't two texts with a space between.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const ModelFile& file);

  std::string Decode(const std::vector<int32_t>& tokens, bool remove_special,
                     bool unparse_special) const override;

 private:
  // A text that merges make: a token's id, or, behind those, the place of a text that is no token.
  using Symbol = int32_t;
  using Merge = MergedPair<Symbol, int32_t>;  // cost: the place in the list
  using Merger = PairMerger<Symbol, int32_t>;

  BpeTokenizer(Vocabulary vocabulary, const PreTokenizer& pre_tokenizer)
      : VocabularyTokenizer(std::move(vocabulary)), pre_tokenizer_(pre_tokenizer) {}
  absl::Status LoadMerges(const ModelFile& file);
  void EncodeText(absl::string_view text, bool behind_special,
                  std::vector<int32_t>& tokens) const override;
  void EncodeWord(absl::string_view word, Merger& merger, std::vector<int32_t>& tokens) const;
  std::string TextOf(absl::string_view entry) const override;

  const PreTokenizer& pre_tokenizer_;
  std::array<Symbol, 256> byte_symbols_{};
  absl::flat_hash_map<std::pair<Symbol, Symbol>, Merge> merges_;
  std::vector<std::vector<int32_t>> spellings_;  // tokens for the symbols that are none
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_BPE_TOKENIZER_H_
