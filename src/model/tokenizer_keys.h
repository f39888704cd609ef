// Metadata keys of ours, for what tokenizers of Hugging Face folders say and a GGUF can't: arrays
// of token ids.
#ifndef EFEDLLM_MODEL_TOKENIZER_KEYS_H_
#define EFEDLLM_MODEL_TOKENIZER_KEYS_H_

#include "absl/strings/string_view.h"

namespace efedllm {

// All tokens that end a generation; GGUF has one for each purpose.
inline constexpr absl::string_view kEndIdsKey = "efedllm.tokenizer.end_ids";
// Special tokens that take the white space behind them along ("rstrip").
inline constexpr absl::string_view kSpaceSwallowersKey = "efedllm.tokenizer.space_swallower_ids";

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_TOKENIZER_KEYS_H_
