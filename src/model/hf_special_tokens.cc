#include "model/hf_special_tokens.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/hf_json.h"
#include "model/tokenizer_keys.h"

namespace efedllm {
namespace {

using nlohmann::json;

// A token by its text: "bos_token": "<s>" or {"content": "<s>", ...}.
std::optional<uint64_t> IdOfText(const json& object, const char* key, const HfTokenIds& ids) {
  const json* token = FindJson(object, key);
  if (token != nullptr && token->is_object()) token = FindJson(*token, "content");
  if (token == nullptr || !token->is_string()) return std::nullopt;
  const auto found = ids.find(token->get_ref<const std::string&>());
  if (found == ids.end()) return std::nullopt;
  return found->second;
}

// "eos_token_id": 2 or [2, 7]. Ids that the vocabulary doesn't have are left out.
std::vector<uint64_t> IdsOf(const json& object, const char* key, uint64_t vocabulary) {
  std::vector<uint64_t> numbers;
  const auto add = [&](const json& id) {
    if (id.is_number_unsigned() && id.get<uint64_t>() < vocabulary) numbers.push_back(id);
  };
  const json* value = FindJson(object, key);
  if (value == nullptr) return numbers;
  if (!value->is_array()) {
    add(*value);
    return numbers;
  }
  for (const json& id : *value) add(id);
  return numbers;
}

// Of the template that puts tokens around a text, in "post_processor".
const json* FindTemplate(const json& tokenizer) {
  const json* processor = FindJson(tokenizer, "post_processor");
  if (processor == nullptr) return nullptr;
  const json* parts = FindJson(*processor, "processors");
  const auto single = [](const json& step) -> const json* {
    if (JsonStringOr(step, "type", "").value_or("") != "TemplateProcessing") return nullptr;
    const json* items = FindJson(step, "single");
    return items != nullptr && items->is_array() && !items->empty() ? items : nullptr;
  };
  if (parts == nullptr || !parts->is_array()) return single(*processor);
  for (const json& step : *parts) {
    if (const json* found = single(step)) return found;
  }
  return nullptr;
}

std::optional<uint64_t> SpecialTokenOf(const json& item, const HfTokenIds& ids) {
  const json* special = FindJson(item, "SpecialToken");
  if (special == nullptr) return std::nullopt;
  return IdOfText(*special, "id", ids);
}

// vocabulary: ids from here on are none.
uint64_t VocabularySize(const HfTokenIds& ids) {
  uint64_t size = 0;
  for (const auto& [text, id] : ids) size = std::max(size, id + 1);
  return size;
}

}  // namespace

absl::Status SetHfSpecialTokens(const HfTokenizerFiles& files, const HfTokenIds& ids, bool spm,
                                ModelContents& model) {
  const uint64_t vocabulary = VocabularySize(ids);
  const auto find = [&](const char* text_key, const char* id_key) -> std::optional<uint64_t> {
    for (const json* file : {&files.tokenizer_config, &files.special_tokens}) {
      if (const auto id = IdOfText(*file, text_key, ids)) return id;
    }
    for (const json* file : {&files.generation_config, &files.config}) {
      const std::vector<uint64_t> numbers = IdsOf(*file, id_key, vocabulary);
      if (!numbers.empty()) return numbers[0];
    }
    return std::nullopt;
  };
  std::optional<uint64_t> bos = find("bos_token", "bos_token_id");
  std::optional<uint64_t> eos = find("eos_token", "eos_token_id");
  std::optional<bool> add_bos;
  std::optional<bool> add_eos;
  if (!spm) add_bos = add_eos = false;
  if (const json* around = FindTemplate(files.tokenizer)) {
    const std::optional<uint64_t> first = SpecialTokenOf(around->front(), ids);
    const std::optional<uint64_t> last = SpecialTokenOf(around->back(), ids);
    add_bos = first.has_value();
    add_eos = last.has_value() && around->size() > 1;
    if (first.has_value()) bos = first;
    if (!eos.has_value()) eos = last;
  }
  ASSIGN_OR_RETURN(add_bos,
                   JsonBoolOr(files.tokenizer_config, "add_bos_token", add_bos.value_or(spm)));
  ASSIGN_OR_RETURN(add_eos,
                   JsonBoolOr(files.tokenizer_config, "add_eos_token", add_eos.value_or(false)));
  model.Set("tokenizer.ggml.add_bos_token", *add_bos);
  model.Set("tokenizer.ggml.add_eos_token", *add_eos);

  const std::pair<const char*, std::optional<uint64_t>> found[] = {
      {"tokenizer.ggml.bos_token_id", bos},
      {"tokenizer.ggml.eos_token_id", eos},
      {"tokenizer.ggml.padding_token_id", find("pad_token", "pad_token_id")},
  };
  for (const auto& [key, id] : found) {
    if (id.has_value()) model.Set(key, *id);
  }
  std::vector<uint64_t> ends;
  for (const json* file : {&files.generation_config, &files.config}) {
    for (const uint64_t id : IdsOf(*file, "eos_token_id", vocabulary)) ends.push_back(id);
  }
  if (!ends.empty()) model.Set(kEndIdsKey, MetadataArray{MetadataArray::Numbers(std::move(ends))});
  return absl::OkStatus();
}

}  // namespace efedllm
