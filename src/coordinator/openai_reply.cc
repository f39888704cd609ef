#include "coordinator/openai_reply.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/random.h"
#include "text/utf8.h"

namespace efedllm {
namespace {

using nlohmann::json;

// As OpenAI: JSON has no infinity.
constexpr float kLeastLogprob = -9999;

bool IsUtf8(absl::string_view text) {
  while (!text.empty()) {
    const Utf8Char c = DecodeUtf8(text);
    if (c.kind != Utf8Char::Kind::kValid) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

// A token as clients see it. Parts of characters are no text: OpenAI writes "bytes:\xf0\x9f".
std::string TokenText(const ServedModel& model, int32_t token) {
  std::string piece = model.tokenizer->Piece(token, /*special=*/true);
  if (IsUtf8(piece)) return piece;
  std::string text = "bytes:";
  for (const char byte : piece) {
    absl::StrAppend(&text, "\\x", absl::Hex(static_cast<uint8_t>(byte), absl::kZeroPad2));
  }
  return text;
}

// A double prints so that reading gives the same float.
json Number(float logprob) { return std::max(logprob, kLeastLogprob); }

json Bytes(absl::string_view piece) {
  json bytes = json::array();
  for (const char byte : piece) bytes.push_back(static_cast<uint8_t>(byte));
  return bytes;
}

json ChatToken(const ServedModel& model, int32_t token, float logprob) {
  return {{"token", TokenText(model, token)},
          {"logprob", Number(logprob)},
          {"bytes", Bytes(model.tokenizer->Piece(token, /*special=*/true))}};
}

size_t Characters(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    return (static_cast<uint8_t>(byte) & 0xc0) != 0x80;
  }));
}

json FinishText(const std::optional<FinishReason>& finish) {
  if (!finish.has_value()) return nullptr;
  return *finish == FinishReason::kStop ? "stop" : "length";
}

}  // namespace

std::string NewReplyId(bool chat) {
  return absl::StrCat(chat ? "chatcmpl-" : "cmpl-", absl::BytesToHexString(SecureRandomBytes(12)));
}

ReplyChoice::ReplyChoice(const ServedModel& model, const ApiRequest& request, size_t index,
                         std::optional<std::string> echo)
    : model_(model), request_(request), index_(index), echo_(std::move(echo)) {}

void ReplyChoice::Take(GenerationEvent event) {
  std::move(event.prompt.begin(), event.prompt.end(), std::back_inserter(prompt_));
  if (!event.token.has_value() && event.text.empty() && !event.finish.has_value()) return;
  if (echo_.has_value()) {
    text_ += *std::exchange(echo_, std::nullopt);
    std::move(prompt_.begin(), prompt_.end(), std::back_inserter(tokens_));
    prompt_.clear();
  }
  text_ += event.text;
  if (event.token.has_value() && request_.logprobs.has_value()) {
    tokens_.push_back(*std::move(event.token));
  }
  finish_ = event.finish;
  completion_tokens_ = event.completion_tokens;
  accepted_tokens_ = event.accepted_tokens;
  rejected_tokens_ = event.rejected_tokens;
  cached_tokens_ = event.cached_tokens;
}

json ReplyChoice::Flush(bool chunk) {
  json choice = {{"index", index_}, {"finish_reason", FinishText(finish_)}, {"logprobs", nullptr}};
  if (request_.chat) {
    json message = json::object();
    if (!chunk || !role_sent_) message["role"] = "assistant";
    if (!chunk || !role_sent_ || !text_.empty()) message["content"] = std::move(text_);
    if (!chunk) message["refusal"] = nullptr;
    role_sent_ = true;
    choice[chunk ? "delta" : "message"] = std::move(message);
    if (request_.logprobs.has_value() && (!chunk || !tokens_.empty())) {
      choice["logprobs"] = ChatLogprobs();
    }
  } else {
    choice["text"] = std::move(text_);
    if (request_.logprobs.has_value() && (!chunk || !tokens_.empty())) {
      choice["logprobs"] = CompletionLogprobs();
    }
  }
  text_.clear();
  tokens_.clear();
  finish_.reset();
  return choice;
}

json ReplyChoice::ChatLogprobs() const {
  json content = json::array();
  for (const ScoredToken& scored : tokens_) {
    json entry = ChatToken(model_, scored.token, scored.logprobs->chosen);
    entry["top_logprobs"] = json::array();
    for (const TokenLogprob& top : scored.logprobs->top) {
      entry["top_logprobs"].push_back(ChatToken(model_, top.token, top.logprob));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

json ReplyChoice::CompletionLogprobs() {
  json tokens = json::array();
  json chosen = json::array();
  json tops = json::array();
  json offsets = json::array();
  for (const ScoredToken& scored : tokens_) {
    const std::string text = TokenText(model_, scored.token);
    offsets.push_back(offset_);
    offset_ += Characters(OffsetText(scored.token));
    tokens.push_back(text);
    if (!scored.logprobs.has_value()) {
      chosen.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    chosen.push_back(Number(scored.logprobs->chosen));
    json top = json::object();
    for (const TokenLogprob& other : scored.logprobs->top) {
      top.emplace(TokenText(model_, other.token), Number(other.logprob));
    }
    top.emplace(text, Number(scored.logprobs->chosen));
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(chosen)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

// What a token adds to the reply's text: nothing for BOS, and not the space that the tokenizer put
// before the text.
std::string ReplyChoice::OffsetText(int32_t token) {
  const Tokenizer& tokenizer = *model_.tokenizer;
  if (token == tokenizer.bos()) return "";
  if (!request_.echo || offset_begun_) return tokenizer.Piece(token, request_.echo);
  offset_begun_ = true;
  return tokenizer.Decode({token}, /*remove_special=*/true, /*unparse_special=*/true);
}

ReplyWriter::ReplyWriter(const ServedModel& model, const ApiRequest& request,
                         const BoundRequest& bound, std::string id, int64_t created)
    : model_(model),
      request_(request),
      prompt_tokens_(bound.prompt_tokens),
      id_(std::move(id)),
      created_(created) {
  choices_.reserve(bound.choices.size());
  for (size_t i = 0; i < bound.choices.size(); ++i) {
    std::optional<std::string> echo;
    if (request.echo) echo = bound.prompt_texts[i / request.n];
    choices_.emplace_back(model, request, i, std::move(echo));
  }
}

void ReplyWriter::Take(GenerationEvent event) {
  ReplyChoice& choice = choices_[event.choice];
  choice.Take(std::move(event));
}

std::optional<std::string> ReplyWriter::Chunk(GenerationEvent event) {
  ReplyChoice& choice = choices_[event.choice];
  choice.Take(std::move(event));
  if (!choice.HasNews()) return std::nullopt;
  json chunk = Envelope(/*chunk=*/true);
  chunk["choices"] = json::array({choice.Flush(/*chunk=*/true)});
  if (request_.include_usage) chunk["usage"] = nullptr;
  return DumpJson(chunk);
}

std::string ReplyWriter::UsageChunk() const {
  json chunk = Envelope(/*chunk=*/true);
  chunk["choices"] = json::array();
  chunk["usage"] = Usage();
  return DumpJson(chunk);
}

std::string ReplyWriter::Whole() {
  json whole = Envelope(/*chunk=*/false);
  whole["choices"] = json::array();
  for (ReplyChoice& choice : choices_) whole["choices"].push_back(choice.Flush(/*chunk=*/false));
  whole["usage"] = Usage();
  return DumpJson(whole);
}

json ReplyWriter::Envelope(bool chunk) const {
  const char* chat = chunk ? "chat.completion.chunk" : "chat.completion";
  return {{"id", id_},
          {"object", request_.chat ? chat : "text_completion"},
          {"created", created_},
          {"model", model_.id}};
}

json ReplyWriter::Usage() const {
  size_t completion_tokens = 0;
  size_t accepted = 0;
  size_t rejected = 0;
  size_t cached = 0;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const ReplyChoice& choice = choices_[i];
    completion_tokens += choice.completion_tokens();
    accepted += choice.accepted_tokens();
    rejected += choice.rejected_tokens();
    // The other choices of a prompt find what the first one computed.
    if (i % request_.n == 0) cached += choice.cached_tokens();
  }
  return {{"prompt_tokens", prompt_tokens_},
          {"completion_tokens", completion_tokens},
          {"total_tokens", prompt_tokens_ + completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached}}},
          {"completion_tokens_details",
           {{"accepted_prediction_tokens", accepted}, {"rejected_prediction_tokens", rejected}}}};
}

}  // namespace efedllm
