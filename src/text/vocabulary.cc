#include "text/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/tokenizer_keys.h"

namespace efedllm {
namespace {

// Texts that end a turn whatever the file calls them: converters often forget to mark them.
constexpr absl::string_view kEndTexts[] = {"<|eot_id|>",
                                           "<|im_end|>",
                                           "<|end|>",
                                           "<|return|>",
                                           "<|call|>",
                                           "<|flush|>",
                                           "<|calls|>",
                                           "<end_of_turn>",
                                           "<|endoftext|>",
                                           "</s>",
                                           "<|eom_id|>",
                                           "<EOT>",
                                           "_<EOT>",
                                           "[EOT]",
                                           "[EOS]",
                                           "<|end_of_text|>",
                                           "<end_of_utterance>",
                                           "<eos>",
                                           "<turn|>",
                                           "<|tool_response>",
                                           "<｜end▁of▁sentence｜>",
                                           "[e~["};

// Markers of fill-in-the-middle: where the file doesn't name the token, a text of the list does.
// Some of them end a generation too.
struct FillInMarker {
  absl::string_view keys[2];
  absl::string_view texts[8];
  bool ends_generation;
};
constexpr FillInMarker kFillInMarkers[] = {
    {{"tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"},
     {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
      "<|code_prefix|>", "<|prefix|>"},
     false},
    {{"tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id"},
     {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
      "<|code_suffix|>", "<|suffix|>"},
     false},
    {{"tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id"},
     {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
      "<|code_middle|>", "<|middle|>"},
     false},
    {{"tokenizer.ggml.fim_pad_token_id"},
     {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"},
     true},
    {{"tokenizer.ggml.fim_rep_token_id"},
     {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"},
     true},
    {{"tokenizer.ggml.fim_sep_token_id"}, {"<|file_sep|>"}, true},
};

// tokenizer.ggml.token_type. 0: undefined, a token that stands for no text.
uint8_t KindOf(double gguf_type) {
  constexpr uint8_t kKinds[] = {0,
                                VocabularyToken::kNormal,
                                VocabularyToken::kUnknown,
                                VocabularyToken::kControl,
                                VocabularyToken::kUserDefined,
                                VocabularyToken::kUnused,
                                VocabularyToken::kByte};
  const bool known = gguf_type >= 0 && gguf_type < static_cast<double>(std::size(kKinds));
  return known ? kKinds[static_cast<size_t>(gguf_type)] : 0;
}

// "<0x0A>" -> 10.
std::optional<uint8_t> ByteOf(absl::string_view text) {
  const auto is_digit = [text](size_t i) {
    return absl::ascii_isxdigit(static_cast<unsigned char>(text[i]));
  };
  uint32_t value = 0;
  if (text.size() != 6 || !absl::StartsWith(text, "<0x") || text[5] != '>' || !is_digit(3) ||
      !is_digit(4) || !absl::SimpleHexAtoi(text.substr(3, 2), &value)) {
    return std::nullopt;
  }
  return static_cast<uint8_t>(value);
}

// The numbers of an array that has one for each token. Empty: the file doesn't have it.
absl::StatusOr<std::vector<double>> PerTokenNumbers(const ModelFile& file, absl::string_view key,
                                                    size_t tokens) {
  if (file.FindValue(key) == nullptr) return std::vector<double>();
  ASSIGN_OR_RETURN(std::vector<double> numbers, file.GetNumbers(key));
  if (numbers.size() != tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "broken vocabulary: ", key, " has ", numbers.size(), " entries for ", tokens, " tokens"));
  }
  return numbers;
}

absl::StatusOr<bool> FlagOr(const ModelFile& file, absl::string_view key, bool otherwise) {
  if (file.FindValue(key) == nullptr) return otherwise;
  return file.GetBool(key);
}

// The id under key. -1: the file doesn't have it. InvalidArgument: not a token.
absl::StatusOr<int32_t> TokenId(const ModelFile& file, absl::string_view key, int32_t size) {
  if (file.FindValue(key) == nullptr) return -1;
  ASSIGN_OR_RETURN(const uint64_t id, file.GetUint(key));
  if (id >= static_cast<uint64_t>(size)) {
    return absl::InvalidArgumentError(
        absl::StrCat("broken vocabulary: ", key, " is ", id, ", but there are ", size, " tokens"));
  }
  return static_cast<int32_t>(id);
}

// The ids of a list, which may be missing.
absl::StatusOr<std::vector<int32_t>> TokenIds(const ModelFile& file, absl::string_view key,
                                              int32_t size) {
  std::vector<int32_t> ids;
  if (file.FindValue(key) == nullptr) return ids;
  ASSIGN_OR_RETURN(const std::vector<double> numbers, file.GetNumbers(key));
  for (const double number : numbers) {
    if (!(number >= 0 && number < size)) {
      return absl::InvalidArgumentError(absl::StrCat("broken vocabulary: ", key, " has ", number,
                                                     ", but there are ", size, " tokens"));
    }
    ids.push_back(static_cast<int32_t>(number));
  }
  return ids;
}

}  // namespace

absl::StatusOr<Vocabulary> Vocabulary::Load(const ModelFile& file,
                                            const VocabularyDefaults& defaults) {
  Vocabulary vocabulary;
  RETURN_IF_ERROR(vocabulary.LoadTokens(file));
  RETURN_IF_ERROR(vocabulary.LoadSpecialIds(file, defaults));
  RETURN_IF_ERROR(vocabulary.LoadFlags(file, defaults));
  RETURN_IF_ERROR(vocabulary.MarkFillInTheMiddle(file));
  vocabulary.MarkEndsOfGeneration();
  vocabulary.OrderSpecialTokens();
  RETURN_IF_ERROR(vocabulary.MarkSpaceSwallowers(file));
  return vocabulary;
}

int32_t Vocabulary::Find(absl::string_view text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? -1 : found->second;
}

absl::Status Vocabulary::LoadTokens(const ModelFile& file) {
  ASSIGN_OR_RETURN(const auto texts, file.GetStrings("tokenizer.ggml.tokens"));
  if (texts.empty() || texts.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("broken vocabulary: ", texts.size(), " tokens in tokenizer.ggml.tokens"));
  }
  ASSIGN_OR_RETURN(const auto scores, PerTokenNumbers(file, "tokenizer.ggml.scores", texts.size()));
  ASSIGN_OR_RETURN(const auto types,
                   PerTokenNumbers(file, "tokenizer.ggml.token_type", texts.size()));
  tokens_.resize(texts.size());
  ids_.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    VocabularyToken& token = tokens_[i];
    token.text = texts[i].empty() ? absl::StrCat("[EMPTY_", i, "]") : std::string(texts[i]);
    if (!ids_.emplace(token.text, static_cast<int32_t>(i)).second) {
      return absl::InvalidArgumentError(absl::StrCat("broken vocabulary: tokens ", Find(token.text),
                                                     " and ", i, " are both \"",
                                                     Printable(token.text), "\""));
    }
    if (!scores.empty()) token.score = static_cast<float>(scores[i]);
    if (std::isnan(token.score)) {
      return absl::InvalidArgumentError(
          absl::StrCat("broken vocabulary: the score of token ", i, " is NaN"));
    }
    if (!types.empty()) token.kind = KindOf(types[i]);
    if (token.kind == VocabularyToken::kByte) {
      const std::optional<uint8_t> byte = ByteOf(token.text);
      if (!byte.has_value()) {
        return absl::InvalidArgumentError(absl::StrCat("broken vocabulary: token ", i,
                                                       " is marked as a byte, but reads \"",
                                                       Printable(token.text), "\""));
      }
      token.byte = *byte;
    }
    max_token_bytes_ = std::max(max_token_bytes_, token.text.size());
  }
  return absl::OkStatus();
}

absl::Status Vocabulary::LoadSpecialIds(const ModelFile& file, const VocabularyDefaults& defaults) {
  struct Entry {
    absl::string_view key;
    int32_t otherwise;
    int32_t* id;
  };
  int32_t end_of_turn = -1;
  int32_t end_of_message = -1;
  const Entry entries[] = {
      {"tokenizer.ggml.bos_token_id", defaults.bos, &bos_},
      {"tokenizer.ggml.eos_token_id", defaults.eos, &eos_},
      {"tokenizer.ggml.unknown_token_id", defaults.unknown, &unknown_},
      {"tokenizer.ggml.eot_token_id", -1, &end_of_turn},
      {"tokenizer.ggml.eom_token_id", -1, &end_of_message},
  };
  for (const Entry& entry : entries) {
    ASSIGN_OR_RETURN(*entry.id, TokenId(file, entry.key, size()));
    if (*entry.id < 0 && entry.otherwise < size()) *entry.id = entry.otherwise;
  }
  for (const int32_t id : {eos_, end_of_turn, end_of_message}) {
    if (id >= 0) end_of_generation_.insert(id);
  }
  ASSIGN_OR_RETURN(const std::vector<int32_t> ends, TokenIds(file, kEndIdsKey, size()));
  end_of_generation_.insert(ends.begin(), ends.end());
  return absl::OkStatus();
}

absl::Status Vocabulary::LoadFlags(const ModelFile& file, const VocabularyDefaults& defaults) {
  ASSIGN_OR_RETURN(add_bos_, FlagOr(file, "tokenizer.ggml.add_bos_token", defaults.add_bos));
  ASSIGN_OR_RETURN(add_eos_, FlagOr(file, "tokenizer.ggml.add_eos_token", defaults.add_eos));
  ASSIGN_OR_RETURN(add_space_prefix_,
                   FlagOr(file, "tokenizer.ggml.add_space_prefix", defaults.add_space_prefix));
  add_bos_ = add_bos_ && bos_ >= 0;
  add_eos_ = add_eos_ && eos_ >= 0;
  return absl::OkStatus();
}

absl::Status Vocabulary::MarkFillInTheMiddle(const ModelFile& file) {
  for (const FillInMarker& marker : kFillInMarkers) {
    int32_t id = -1;
    for (const absl::string_view key : marker.keys) {
      if (id < 0 && !key.empty()) {
        ASSIGN_OR_RETURN(id, TokenId(file, key, size()));
      }
    }
    for (const absl::string_view text : marker.texts) {
      if (id >= 0 || text.empty()) break;
      id = Find(text);
      if (id >= 0) tokens_[static_cast<size_t>(id)].kind |= VocabularyToken::kControl;
    }
    if (id >= 0 && marker.ends_generation) end_of_generation_.insert(id);
  }
  return absl::OkStatus();
}

void Vocabulary::MarkEndsOfGeneration() {
  for (const absl::string_view text : kEndTexts) {
    const int32_t id = Find(text);
    if (id < 0) continue;
    end_of_generation_.insert(id);
    tokens_[static_cast<size_t>(id)].kind |= VocabularyToken::kControl;
  }
}

void Vocabulary::OrderSpecialTokens() {
  constexpr uint8_t kSpecial =
      VocabularyToken::kControl | VocabularyToken::kUserDefined | VocabularyToken::kUnknown;
  for (int32_t id = 0; id < size(); ++id) {
    if (token(id).kind & kSpecial) special_tokens_.push_back(id);
  }
  // The longest first. Not a stable sort: where two of one length overlap in a text, llama.cpp's
  // answer depends on this very function.
  std::sort(special_tokens_.begin(), special_tokens_.end(),
            [this](int32_t a, int32_t b) { return token(a).text.size() > token(b).text.size(); });
}

absl::Status Vocabulary::MarkSpaceSwallowers(const ModelFile& file) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, TokenIds(file, kSpaceSwallowersKey, size()));
  for (const int32_t id : ids) tokens_[static_cast<size_t>(id)].swallows_space_behind = true;
  const auto name = file.GetString("general.name");
  if (!name.ok()) return absl::OkStatus();
  const std::string lower = absl::AsciiStrToLower(*name);
  if (!absl::StrContains(lower, "phi-3") && !absl::StrContains(lower, "phi3")) {
    return absl::OkStatus();
  }
  // The file format can't say this; llama.cpp goes by the model's name, and so do we.
  for (const int32_t id : special_tokens_) {
    VocabularyToken& token = tokens_[static_cast<size_t>(id)];
    token.swallows_space_behind =
        token.text != "<unk>" && token.text != "<s>" && token.text != "<|endoftext|>";
  }
  return absl::OkStatus();
}

}  // namespace efedllm
