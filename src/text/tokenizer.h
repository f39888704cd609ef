// Text <-> token ids, from a GGUF's vocabulary. Exact: equal to llama.cpp on every string.
#ifndef EFEDLLM_TEXT_TOKENIZER_H_
#define EFEDLLM_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/model_file.h"

namespace efedllm {

struct TokenizeOptions {
  bool add_special = true;  // BOS (and EOS) as the vocabulary asks for them
  bool parse_special =
      false;  // "<|im_start|>" in the text becomes that token; else it is plain text
};

// A part of a prompt. What we wrote ourselves (a chat template) may name special tokens; what a
// client wrote may not, or it could forge turns.
struct PromptPiece {
  std::string text;
  bool special = false;  // as TokenizeOptions::parse_special, for this piece alone
};

// Immutable; thread-safe. Owns its vocabulary (the GGUF may be closed).
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Unimplemented: a tokenizer model that this build doesn't know, by name. InvalidArgument: a
  // broken vocabulary.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const ModelFile& file);

  // Any bytes: what is not UTF-8 goes through byte tokens, or (BPE) as a U+FFFD for each byte. Time
  // is O(n log n) in the text's length.
  std::vector<int32_t> Encode(absl::string_view text, const TokenizeOptions& options) const;

  // The same for a prompt in pieces. They are one text: a token may span a boundary, but a special
  // token is only seen inside a piece that is special. add_special: as in TokenizeOptions.
  virtual std::vector<int32_t> EncodePrompt(absl::Span<const PromptPiece> pieces,
                                            bool add_special) const = 0;

  // The bytes that a token stands for; may be part of a UTF-8 character. Control tokens: empty,
  // unless special is set. Empty for a token outside [0, vocab_size).
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
  // Longest token text in bytes: a text of n bytes has at least n / max_piece_bytes tokens.
  virtual size_t max_piece_bytes() const = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_TOKENIZER_H_
