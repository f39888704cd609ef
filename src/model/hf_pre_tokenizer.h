// Which family's pre-tokenizer a tokenizer.json has.
#ifndef EFEDLLM_MODEL_HF_PRE_TOKENIZER_H_
#define EFEDLLM_MODEL_HF_PRE_TOKENIZER_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

// The name in GGUF ("tokenizer.ggml.pre") of a byte-level tokenizer.json's "pre_tokenizer": these
// files spell out the regular expressions, and we know the families' by heart. ignore_merges: of
// its model, which some names imply. Unimplemented: none of them; the message shows it.
absl::StatusOr<absl::string_view> RecognisePreTokenizer(const nlohmann::json& pre_tokenizer,
                                                        bool ignore_merges);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_HF_PRE_TOKENIZER_H_
