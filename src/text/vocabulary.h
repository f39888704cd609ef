// What a GGUF says about its tokens, whatever the tokenizer: texts, scores, kinds, and which of
// them are special.
#ifndef EFEDLLM_TEXT_VOCABULARY_H_
#define EFEDLLM_TEXT_VOCABULARY_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_file.h"

namespace efedllm {

struct VocabularyToken {
  // Bits: a text that marks an end of turn makes a token control, beside what it was.
  enum Kind : uint8_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 4,
    kUserDefined = 8,
    kUnused = 16,
    kByte = 32,
  };
  std::string text;
  float score = 0;
  uint8_t kind = kNormal;
  uint8_t byte = 0;                    // of a kByte token
  bool swallows_space_behind = false;  // parsed in a text, takes the white space behind it along
};

// What the tokenizer family assumes where the file is silent.
struct VocabularyDefaults {
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t unknown = -1;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;
};

// Immutable; thread-safe. Owns its texts.
class Vocabulary {
 public:
  // InvalidArgument: no tokens, arrays of unequal length, an empty or repeated token, a score that
  // is NaN, a byte token that doesn't read <0xNN>, or a special token's id out of range.
  static absl::StatusOr<Vocabulary> Load(const ModelFile& file, const VocabularyDefaults& defaults);

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  bool Contains(int32_t token) const { return token >= 0 && token < size(); }
  const VocabularyToken& token(int32_t id) const { return tokens_[static_cast<size_t>(id)]; }
  int32_t Find(absl::string_view text) const;  // -1: no such token
  // Control, unknown and user-defined tokens, in the order in which a text is searched for them.
  const std::vector<int32_t>& special_tokens() const { return special_tokens_; }
  bool IsEndOfGeneration(int32_t token) const { return end_of_generation_.contains(token); }

  // -1: none.
  int32_t bos() const { return bos_; }
  int32_t eos() const { return eos_; }
  int32_t unknown() const { return unknown_; }
  bool add_bos() const { return add_bos_; }  // only where there is a BOS; likewise EOS
  bool add_eos() const { return add_eos_; }
  bool add_space_prefix() const { return add_space_prefix_; }
  size_t max_token_bytes() const { return max_token_bytes_; }

 private:
  absl::Status LoadTokens(const ModelFile& file);
  absl::Status LoadSpecialIds(const ModelFile& file, const VocabularyDefaults& defaults);
  absl::Status LoadFlags(const ModelFile& file, const VocabularyDefaults& defaults);
  absl::Status MarkFillInTheMiddle(const ModelFile& file);
  void MarkEndsOfGeneration();
  void OrderSpecialTokens();
  absl::Status MarkSpaceSwallowers(const ModelFile& file);

  std::vector<VocabularyToken> tokens_;
  absl::flat_hash_map<std::string, int32_t> ids_;
  std::vector<int32_t> special_tokens_;
  absl::flat_hash_set<int32_t> end_of_generation_;
  int32_t bos_ = -1;
  int32_t eos_ = -1;
  int32_t unknown_ = -1;
  bool add_bos_ = false;
  bool add_eos_ = false;
  bool add_space_prefix_ = false;
  size_t max_token_bytes_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_VOCABULARY_H_
