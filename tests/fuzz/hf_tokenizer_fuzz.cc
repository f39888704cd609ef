// libs: efedllm_text efedllm_model
// Any bytes as {"tokenizer": tokenizer.json, "tokenizer_config": ..., "special_tokens": ...,
// "generation_config": ..., "config": ...}: refused with a message, or a tokenizer through which
// every text comes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "common/check.h"
#include "model/hf_json.h"
#include "model/hf_tokenizer.h"
#include "text/tokenizer.h"

namespace {

constexpr uint64_t kRows = 300;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace efedllm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<nlohmann::json> all = ParseJsonObject(text);
  if (!all.ok()) return 0;
  HfTokenizerFiles files;
  const std::pair<const char*, nlohmann::json*> parts[] = {
      {"tokenizer", &files.tokenizer},
      {"tokenizer_config", &files.tokenizer_config},
      {"special_tokens", &files.special_tokens},
      {"generation_config", &files.generation_config},
      {"config", &files.config},
  };
  for (const auto& [key, part] : parts) {  // all of them are objects, as ParseJsonObject gives them
    if (all->contains(key) && all->at(key).is_object()) *part = std::move(all->at(key));
  }
  if (files.tokenizer.is_null()) return 0;
  ModelContents model;
  model.parts.emplace_back();
  if (files.tokenizer_config.contains("chat_template")) {
    (void)ReadHfChatTemplate(files.tokenizer_config.at("chat_template"), model);
  }
  const absl::Status status = ReadHfTokenizer(std::move(files), kRows, model);
  if (!status.ok()) {
    CHECK(!status.message().empty());
    return 0;
  }
  const absl::StatusOr<ModelFile> file = ModelFile::Create(std::move(model));
  CHECK(file.ok());
  const auto tokenizer = Tokenizer::Create(*file);
  if (!tokenizer.ok()) return 0;
  const std::string tail(text.substr(text.size() - std::min<size_t>(text.size(), 512)));
  for (const int32_t token : (*tokenizer)->Encode(tail, {true, true})) {
    CHECK(token >= 0 && token < static_cast<int32_t>(kRows));
  }
  return 0;
}
