// tokenizer.json of a Hugging Face folder, and the files around it, as GGUF's tokenizer keys.
#ifndef EFEDLLM_MODEL_HF_TOKENIZER_H_
#define EFEDLLM_MODEL_HF_TOKENIZER_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/model_file.h"

namespace efedllm {

// The parsed files; an absent one is null.
struct HfTokenizerFiles {
  nlohmann::json tokenizer;          // tokenizer.json, taken apart
  nlohmann::json tokenizer_config;   // tokenizer_config.json
  nlohmann::json special_tokens;     // special_tokens_map.json
  nlohmann::json generation_config;  // generation_config.json
  nlohmann::json config;             // config.json
};

// Sets the keys below "tokenizer". A byte-level BPE becomes "gpt2"; one over characters with byte
// fallback (Llama 2, Mistral, Gemma, Phi 3) becomes "llama", whose scores say the same as its
// merges' order. rows: of the embedding, and so tokens in the result; what tokenizer.json doesn't
// name is unused. Unimplemented: another kind of tokenizer, by name; InvalidArgument: malformed.
absl::Status ReadHfTokenizer(HfTokenizerFiles files, uint64_t rows, ModelContents& model);

// "tokenizer.chat_template", and "tokenizer.chat_template.<name>" of others, from
// tokenizer_config.json's or chat_template.json's "chat_template".
absl::Status ReadHfChatTemplate(const nlohmann::json& chat_template, ModelContents& model);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_HF_TOKENIZER_H_
