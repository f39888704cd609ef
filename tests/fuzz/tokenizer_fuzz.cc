// libs: efedllm_text efedllm_model
// The input is a GGUF and, behind it, a text: whatever vocabulary it describes, every text must
// come through.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "model/model_file.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

void TokenizeWith(const Tokenizer& tokenizer, const std::string& text) {
  for (const bool parse_special : {false, true}) {
    const auto tokens = tokenizer.Encode(text, {true, parse_special});
    tokenizer.Decode(tokens, true, parse_special);
    for (const int32_t token : tokens) {
      if (token < 0 || token >= tokenizer.vocab_size()) __builtin_trap();
    }
  }
}

}  // namespace
}  // namespace efedllm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = efedllm::ModelFile::Parse({data, size});
  if (!file.ok()) return 0;
  const auto tokenizer = efedllm::Tokenizer::Create(*file);
  if (!tokenizer.ok()) return 0;
  const size_t text_bytes = std::min<size_t>(size, 512);
  const char* end = reinterpret_cast<const char*>(data) + size;
  efedllm::TokenizeWith(**tokenizer, std::string(end - text_bytes, text_bytes));
  return 0;
}
