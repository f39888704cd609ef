// Prompt lookup: where did the last tokens of a text stand before, and what came after them? Text
// that repeats itself (code, quotes, lists, tables) is guessed from itself, without a model.
#ifndef EFEDLLM_TEXT_NGRAM_LOOKUP_H_
#define EFEDLLM_TEXT_NGRAM_LOOKUP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace efedllm {

// The tokens of one sequence, and where each of their n-grams stood last. Append and Find take
// constant time, amortized; memory is at most 56 bytes a token. Not thread-safe.
class NgramLookup {
 public:
  static constexpr uint32_t kLeastMatch = 2;    // tokens; shorter ones are found anywhere
  static constexpr uint32_t kIndexedMatch = 4;  // longer ones are found by their last four
  static constexpr uint32_t kMostMatch = 16;    // that is counted

  // The text's last `length` tokens, and not the one before them, stood before, and were followed
  // by what begins at `next`. Length 0: there is no such place.
  struct Match {
    uint32_t length = 0;
    uint32_t next = 0;
  };

  void Append(int32_t token);
  void Append(absl::Span<const int32_t> tokens);
  size_t size() const { return tokens_.size(); }

  // The last place of the last four tokens; where there is none, of the last three, or two.
  Match Find();
  // The count tokens that follow the match. Where it reaches the text's end, it goes on with its
  // own beginning: a period that began goes on. match: not empty, and found in the present text.
  std::vector<int32_t> Following(const Match& match, size_t count) const;

 private:
  static constexpr size_t kSizes = kIndexedMatch - kLeastMatch + 1;

  uint32_t Common(size_t a, size_t b) const;
  uint32_t& Slot(size_t end, uint32_t n);
  void Index(size_t end);
  void Grow();

  std::vector<int32_t> tokens_;
  // [n - kLeastMatch]: a hash table with open addressing, at most half full. A slot holds the end
  // of the n-gram's last place that something follows; 0: it is free.
  std::array<std::vector<uint32_t>, kSizes> ends_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_NGRAM_LOOKUP_H_
