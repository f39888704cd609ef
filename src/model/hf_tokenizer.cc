#include "model/hf_tokenizer.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/hf_json.h"
#include "model/hf_pre_tokenizer.h"
#include "model/hf_special_tokens.h"
#include "model/tokenizer_keys.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr absl::string_view kSpace = "\xe2\x96\x81";  // U+2581

// tokenizer.ggml.token_type
enum TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

absl::Status Malformed(absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: ", message));
}

absl::Status Unsupported(absl::string_view message) {
  return absl::UnimplementedError(absl::StrCat("tokenizer.json: ", message, " is not supported"));
}

// The steps of a normalizer or pre-tokenizer, which may be a sequence.
std::vector<const json*> StepsOf(const json* component, const char* list) {
  std::vector<const json*> steps;
  if (component == nullptr) return steps;
  const json* sequence = FindJson(*component, list);
  if (sequence == nullptr || !sequence->is_array()) return {component};
  for (const json& step : *sequence) steps.push_back(&step);
  return steps;
}

std::string TypeOf(const json& step) { return JsonStringOr(step, "type", "").value_or(""); }

class Reader {
 public:
  Reader(json& tokenizer, uint64_t rows, ModelContents& model)
      : tokenizer_(tokenizer), rows_(rows), model_(model) {}

  absl::Status Read() {
    RETURN_IF_ERROR(ReadModel());
    RETURN_IF_ERROR(ReadVocabulary());
    RETURN_IF_ERROR(ReadAddedTokens());
    RETURN_IF_ERROR(spm_ ? ReadSpm() : ReadByteLevel());
    return Finish();
  }

  const HfTokenIds& ids() const { return ids_; }
  bool spm() const { return spm_; }

 private:
  // Which kind of tokenizer it is.
  absl::Status ReadModel() {
    const auto found = tokenizer_.find("model");
    if (found == tokenizer_.end() || !found->is_object()) return Malformed("there is no \"model\"");
    bpe_ = &*found;
    const absl::StatusOr<std::string> type = JsonStringOr(*bpe_, "type", "BPE");
    if (!type.ok() || *type != "BPE") {
      return Unsupported(absl::StrCat("a model of type '", Printable(TypeOf(*bpe_)), "' (BPE is)"));
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const absl::StatusOr<std::string> affix = JsonStringOr(*bpe_, key, "");
      if (!affix.ok() || !affix->empty()) return Unsupported(absl::StrCat("\"", key, "\""));
    }
    const absl::StatusOr<bool> ignore_merges = JsonBoolOr(*bpe_, "ignore_merges", false);
    ignore_merges_ = ignore_merges.ok() && *ignore_merges;

    bool byte_level = false;
    for (const char* component : {"pre_tokenizer", "decoder"}) {
      const bool decoder = component[0] == 'd';
      for (const json* step :
           StepsOf(FindJson(tokenizer_, component), decoder ? "decoders" : "pretokenizers")) {
        byte_level = byte_level || TypeOf(*step) == "ByteLevel";
      }
    }
    spm_ = !byte_level;
    return absl::OkStatus();
  }

  absl::Status ReadVocabulary() {
    texts_.resize(rows_);
    types_.assign(rows_, kUnused);
    const auto vocab = bpe_->find("vocab");
    if (vocab == bpe_->end() || !vocab->is_object()) return Malformed("the model has no \"vocab\"");
    ids_.reserve(vocab->size());
    const absl::flat_hash_set<std::string> added = AddedTexts();
    for (const auto& [text, id] : vocab->items()) {
      if (id.is_number_unsigned() && id.get<uint64_t>() >= rows_ && added.contains(text)) continue;
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= rows_) {
        return Malformed(absl::StrCat("token \"", Printable(text), "\" has the id ", id.dump(),
                                      ", but the embedding has ", rows_, " rows"));
      }
      RETURN_IF_ERROR(SetToken(id.get<uint64_t>(), text, kNormal));
    }
    vocab->clear();
    return absl::OkStatus();
  }

  absl::flat_hash_set<std::string> AddedTexts() const {
    absl::flat_hash_set<std::string> texts;
    const json* added = FindJson(tokenizer_, "added_tokens");
    if (added == nullptr) return texts;
    for (const json& token : *added) {
      texts.insert(JsonStringOr(token, "content", "").value_or(""));
    }
    return texts;
  }

  absl::Status SetToken(uint64_t id, const std::string& text, TokenType type) {
    if (types_[id] != kUnused && texts_[id] != text) {
      return Malformed(absl::StrCat("tokens \"", Printable(texts_[id]), "\" and \"",
                                    Printable(text), "\" both have the id ", id));
    }
    texts_[id] = model_.Keep(text);
    types_[id] = type;
    ids_[texts_[id]] = id;
    return absl::OkStatus();
  }

  // As convert_hf_to_gguf.py, whose files these tokens must tokenize like.
  static bool LooksSpecial(absl::string_view text) {
    for (const absl::string_view known : {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}) {
      if (text == known) return true;
    }
    return (absl::StartsWith(text, "<|") && absl::EndsWith(text, "|>")) ||
           (absl::StartsWith(text, "<｜") && absl::EndsWith(text, "｜>")) ||
           (absl::StartsWith(text, "<unused") && absl::EndsWith(text, ">"));
  }

  absl::Status ReadAddedTokens() {
    const json* added = FindJson(tokenizer_, "added_tokens");
    if (added == nullptr) return absl::OkStatus();
    if (!added->is_array()) return Malformed("\"added_tokens\" is not a list");
    std::vector<uint64_t> swallowers;
    for (const json& token : *added) {
      const json* content = FindJson(token, "content");
      const json* id = FindJson(token, "id");
      if (content == nullptr || !content->is_string() || id == nullptr ||
          !id->is_number_unsigned()) {
        return Malformed("an entry of \"added_tokens\" lacks its \"content\" or \"id\"");
      }
      const absl::StatusOr<bool> special = JsonBoolOr(token, "special", false);
      const absl::StatusOr<bool> rstrip = JsonBoolOr(token, "rstrip", false);
      if (!special.ok() || !rstrip.ok()) return Malformed("\"added_tokens\" has no flags");
      // The tokenizer may have more than this size of the model knows, such as images'.
      const auto number = id->get<uint64_t>();
      if (number >= rows_) continue;
      const std::string& text = content->get_ref<const std::string&>();
      const bool control = *special || LooksSpecial(text);
      RETURN_IF_ERROR(SetToken(number, text, control ? kControl : kUserDefined));
      // It is looked for in texts before their spaces are replaced.
      if (!control) texts_[number] = model_.Keep(absl::StrReplaceAll(text, {{kSpace, " "}}));
      if (*rstrip) swallowers.push_back(number);
    }
    if (!swallowers.empty()) {
      model_.Set(kSpaceSwallowersKey, MetadataArray{MetadataArray::Numbers(std::move(swallowers))});
    }
    return absl::OkStatus();
  }

  // Calls visit(rank, left, right) for each merge, which may be written in two ways.
  template <class Visit>
  absl::Status ForEachMerge(const Visit& visit) {
    const auto merges = bpe_->find("merges");
    if (merges == bpe_->end() || !merges->is_array()) {
      return Malformed("the model has no \"merges\"");
    }
    for (size_t rank = 0; rank < merges->size(); ++rank) {
      const json& merge = (*merges)[rank];
      if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        visit(rank, merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>());
        continue;
      }
      const std::string* text = merge.is_string() ? &merge.get_ref<const std::string&>() : nullptr;
      const size_t space = text == nullptr ? std::string::npos : text->find(' ');
      if (space == std::string::npos) {
        return Malformed(absl::StrCat("merge ", rank, " is not a pair of tokens"));
      }
      visit(rank, absl::string_view(*text).substr(0, space),
            absl::string_view(*text).substr(space + 1));
    }
    merges->clear();
    return absl::OkStatus();
  }

  absl::Status ReadByteLevel() {
    for (const json* step : StepsOf(FindJson(tokenizer_, "normalizer"), "normalizers")) {
      // As llama.cpp, which leaves the text as it is.
      if (TypeOf(*step) == "NFC") continue;
      return Unsupported(absl::StrCat("the normalizer ", Printable(TypeOf(*step))));
    }
    const json* pre_tokenizer = FindJson(tokenizer_, "pre_tokenizer");
    if (pre_tokenizer == nullptr) return Unsupported("a byte level without a pre_tokenizer");
    const absl::StatusOr<absl::string_view> pre =
        RecognisePreTokenizer(*pre_tokenizer, ignore_merges_);
    if (!pre.ok()) {
      return absl::Status(pre.status().code(),
                          absl::StrCat("tokenizer.json: ", pre.status().message()));
    }
    model_.Set("tokenizer.ggml.model", absl::string_view("gpt2"));
    model_.Set("tokenizer.ggml.pre", *pre);
    std::vector<absl::string_view> merges;
    RETURN_IF_ERROR(ForEachMerge([&](size_t, absl::string_view left, absl::string_view right) {
      merges.push_back(model_.Keep(absl::StrCat(left, " ", right)));
    }));
    model_.Set("tokenizer.ggml.merges", MetadataArray{std::move(merges)});
    return absl::OkStatus();
  }

  absl::Status ReadSpm() {
    const absl::StatusOr<bool> byte_fallback = JsonBoolOr(*bpe_, "byte_fallback", false);
    if (!byte_fallback.ok() || !*byte_fallback) {
      return Unsupported("a BPE model with neither a byte level nor \"byte_fallback\"");
    }
    bool prefix = false;
    bool escaped = false;
    RETURN_IF_ERROR(ReadNormalizer(prefix, escaped));
    for (const json* step : StepsOf(FindJson(tokenizer_, "pre_tokenizer"), "pretokenizers")) {
      if (TypeOf(*step) == "Metaspace") {
        const absl::StatusOr<bool> add = JsonBoolOr(*step, "add_prefix_space", true);
        const absl::StatusOr<std::string> scheme =
            JsonStringOr(*step, "prepend_scheme", add.ok() && !*add ? "never" : "always");
        prefix = prefix || !scheme.ok() || *scheme != "never";
        escaped = true;
      } else if (TypeOf(*step) != "Split" || !escaped) {  // spaces are gone, it splits nothing
        return Unsupported(absl::StrCat("the pre_tokenizer ", Printable(TypeOf(*step))));
      }
    }
    if (!escaped) return Unsupported("a BPE model over characters that keeps spaces");
    model_.Set("tokenizer.ggml.model", absl::string_view("llama"));
    model_.Set("tokenizer.ggml.add_space_prefix", prefix);

    std::vector<double> scores(rows_, kNeverMerged);
    RETURN_IF_ERROR(ForEachMerge([&](size_t rank, absl::string_view left, absl::string_view right) {
      const auto token = ids_.find(absl::StrCat(left, right));
      if (token == ids_.end()) return;
      // The first merge that makes it.
      double& score = scores[token->second];
      if (score == kNeverMerged) score = -static_cast<double>(rank);
    }));
    model_.Set("tokenizer.ggml.scores", MetadataArray{MetadataArray::Numbers(std::move(scores))});
    MarkBytes();
    return absl::OkStatus();
  }

  absl::Status ReadNormalizer(bool& prefix, bool& escaped) {
    for (const json* step : StepsOf(FindJson(tokenizer_, "normalizer"), "normalizers")) {
      if (TypeOf(*step) == "Prepend" && JsonStringOr(*step, "prepend", "").value_or("") == kSpace) {
        prefix = true;
      } else if (TypeOf(*step) == "Replace" &&
                 JsonStringOr(*step, "content", "").value_or("") == kSpace) {
        escaped = true;
      } else {
        return Unsupported(absl::StrCat("the normalizer ", Printable(TypeOf(*step))));
      }
    }
    return absl::OkStatus();
  }

  void MarkBytes() {
    for (uint64_t id = 0; id < rows_; ++id) {
      const absl::string_view text = texts_[id];
      if (types_[id] != kNormal || text.size() != 6 || !absl::StartsWith(text, "<0x")) continue;
      const bool hex = text.find_first_not_of("0123456789ABCDEFabcdef", 3) == 5 && text[5] == '>';
      if (hex) types_[id] = kByte;
    }
    const absl::StatusOr<std::string> unknown = JsonStringOr(*bpe_, "unk_token", "");
    if (!unknown.ok() || unknown->empty()) return;
    const auto found = ids_.find(*unknown);
    if (found == ids_.end()) return;
    types_[found->second] = kUnknown;
    model_.Set("tokenizer.ggml.unknown_token_id", found->second);
  }

  absl::Status Finish() {
    for (uint64_t id = 0; id < rows_; ++id) {
      if (types_[id] == kUnused) texts_[id] = model_.Keep(absl::StrCat("[PAD", id, "]"));
    }
    model_.Set("tokenizer.ggml.tokens", MetadataArray{texts_});
    model_.Set("tokenizer.ggml.token_type", MetadataArray{MetadataArray::Numbers(types_)});
    return absl::OkStatus();
  }

  // Below the score of every merge.
  static constexpr double kNeverMerged = -1e9;

  json& tokenizer_;
  const uint64_t rows_;
  ModelContents& model_;
  json* bpe_ = nullptr;  // tokenizer.json's "model"
  bool spm_ = false;
  bool ignore_merges_ = false;
  std::vector<absl::string_view> texts_;  // by id, as the types
  std::vector<int64_t> types_;
  HfTokenIds ids_;
};

}  // namespace

absl::Status ReadHfTokenizer(HfTokenizerFiles files, uint64_t rows, ModelContents& model) {
  Reader reader(files.tokenizer, rows, model);
  RETURN_IF_ERROR(reader.Read());
  return SetHfSpecialTokens(files, reader.ids(), reader.spm(), model);
}

absl::Status ReadHfChatTemplate(const json& chat_template, ModelContents& model) {
  if (chat_template.is_null()) return absl::OkStatus();
  if (chat_template.is_string()) {
    model.Set("tokenizer.chat_template", model.Keep(chat_template.get<std::string>()));
    return absl::OkStatus();
  }
  if (!chat_template.is_array()) {
    return absl::InvalidArgumentError("\"chat_template\" is neither a text nor a list");
  }
  for (const json& entry : chat_template) {
    ASSIGN_OR_RETURN(const std::string name, JsonStringOr(entry, "name", ""));
    ASSIGN_OR_RETURN(std::string text, JsonStringOr(entry, "template", ""));
    model.Set(name == "default" ? "tokenizer.chat_template"
                                : absl::StrCat("tokenizer.chat_template.", name),
              model.Keep(std::move(text)));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
