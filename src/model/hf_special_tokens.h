// Which tokens of a Hugging Face tokenizer begin and end a text.
#ifndef EFEDLLM_MODEL_HF_SPECIAL_TOKENS_H_
#define EFEDLLM_MODEL_HF_SPECIAL_TOKENS_H_

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/hf_tokenizer.h"
#include "model/model_file.h"

namespace efedllm {

using HfTokenIds = absl::flat_hash_map<absl::string_view, uint64_t>;

// Sets GGUF's keys of the special tokens and of whether they are added, and kEndIdsKey. What
// several files say is taken in the order in which transformers does: tokenizer_config.json,
// special_tokens_map.json, generation_config.json, config.json. spm: BOS is added unless the files
// say otherwise.
absl::Status SetHfSpecialTokens(const HfTokenizerFiles& files, const HfTokenIds& ids, bool spm,
                                ModelContents& model);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_HF_SPECIAL_TOKENS_H_
