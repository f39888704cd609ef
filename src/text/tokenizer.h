// Text <-> token ids, from a GGUF's vocabulary. Exact: equal to llama.cpp on every string.
#ifndef EFEDLLM_TEXT_TOKENIZER_H_
#define EFEDLLM_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gguf.h"

namespace efedllm {

struct TokenizeOptions {
  bool add_special = true;  // BOS (and EOS) as the vocabulary asks for them
  bool parse_special =
      false;  // "<|im_start|>" in the text becomes that token; else it is plain text
};

// Immutable; thread-safe. Owns its vocabulary (the GGUF may be closed).
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Unimplemented: a tokenizer model that this build doesn't know, by name. InvalidArgument: a
  // broken vocabulary.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufFile& file);

  // Any bytes: what is not UTF-8 goes through byte tokens. Time is O(n log n) in the text's length.
  virtual std::vector<int32_t> Encode(absl::string_view text,
                                      const TokenizeOptions& options) const = 0;

  // The bytes that a token stands for; may be part of a UTF-8 character. Control tokens: empty,
  // unless special is set.
  virtual std::string Piece(int32_t token, bool special) const = 0;

  // All tokens' bytes; as Piece, but with the space that the tokenizer put before a text taken away
  // again, and BOS, EOS removed where remove_special says so.
  virtual std::string Decode(const std::vector<int32_t>& tokens, bool remove_special,
                             bool unparse_special) const = 0;

  virtual int32_t vocab_size() const = 0;
  virtual int32_t bos() const = 0;  // -1: none
  virtual int32_t eos() const = 0;  // -1: none
  // End of generation: EOS, EOT and the like.
  virtual bool IsEndOfGeneration(int32_t token) const = 0;
  // Longest piece in bytes: bounds how many tokens a text of n bytes must at least have.
  virtual size_t max_piece_bytes() const = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_TOKENIZER_H_
