#include "coordinator/boundary_calibration_text.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

constexpr size_t kLongestWindow = 1024;
constexpr uint64_t kFewestTokens = 64;
constexpr absl::string_view kDocumentEnd = "%%%\n";
constexpr absl::string_view kRoles[] = {"system", "user", "assistant"};

// "user: ..." begins a message; other lines go on with it.
std::vector<ChatMessage> MessagesOf(absl::string_view document) {
  std::vector<ChatMessage> messages;
  for (const absl::string_view line : absl::StrSplit(absl::StripSuffix(document, "\n"), '\n')) {
    absl::string_view content = line;
    for (const absl::string_view role : kRoles) {
      if (!absl::ConsumePrefix(&content, absl::StrCat(role, ": "))) continue;
      messages.push_back({std::string(role), std::string(content)});
      break;
    }
    if (content.size() == line.size()) absl::StrAppend(&messages.back().content, "\n", line);
  }
  return messages;
}

bool IsChat(absl::string_view document) {
  return absl::StartsWith(document, "user: ") || absl::StartsWith(document, "system: ");
}

// Collects tokens into windows.
class WindowMaker {
 public:
  WindowMaker(const Tokenizer& tokenizer, size_t longest, uint64_t max_tokens)
      : tokenizer_(tokenizer), longest_(longest), left_(max_tokens) {
    const std::vector<int32_t> special = tokenizer.Encode("", {.add_special = true});
    if (!special.empty() && special[0] == tokenizer.bos()) begin_ = {tokenizer.bos()};
  }

  bool full() const { return left_ == 0; }

  void AddText(absl::string_view text) {
    for (const int32_t token : tokenizer_.Encode(text, {.add_special = false})) {
      if (full()) return;
      if (running_.empty()) running_ = begin_;
      running_.push_back(token);
      if (running_.size() >= std::min<uint64_t>(longest_, left_)) Close();
    }
  }

  // A window of its own.
  void AddWhole(std::vector<int32_t> tokens) {
    tokens.resize(std::min<uint64_t>({tokens.size(), longest_, left_}));
    if (tokens.empty()) return;
    left_ -= tokens.size();
    windows_.windows.push_back(std::move(tokens));
  }

  TokenWindows Take() {
    Close();
    return std::move(windows_);
  }

 private:
  void Close() { AddWhole(std::exchange(running_, {})); }

  const Tokenizer& tokenizer_;
  const size_t longest_;
  uint64_t left_;
  std::vector<int32_t> begin_;
  std::vector<int32_t> running_;
  TokenWindows windows_;
};

}  // namespace

uint64_t TokenWindows::tokens() const {
  uint64_t sum = 0;
  for (const std::vector<int32_t>& window : windows) sum += window.size();
  return sum;
}

std::vector<uint32_t> TokenWindows::lengths() const {
  std::vector<uint32_t> lengths;
  lengths.reserve(windows.size());
  for (const std::vector<int32_t>& window : windows) {
    lengths.push_back(static_cast<uint32_t>(window.size()));
  }
  return lengths;
}

absl::StatusOr<TokenWindows> CalibrationWindows(const ModelFile& file, absl::string_view text,
                                                uint32_t context, uint64_t max_tokens) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(file));
  const absl::StatusOr<ChatTemplate> chat = ChatTemplate::ForModel(file, *tokenizer);
  WindowMaker maker(*tokenizer, std::min<size_t>(context, kLongestWindow), max_tokens);
  for (const absl::string_view document : absl::StrSplit(text, kDocumentEnd)) {
    if (maker.full()) break;
    absl::StatusOr<std::vector<PromptPiece>> pieces = absl::NotFoundError("no chat");
    if (chat.ok() && IsChat(document)) {
      // Templates that tell the date must not make each calibration another.
      pieces = chat->Render(MessagesOf(document),
                            {.add_generation_prompt = false, .now = absl::UnixEpoch()});
    }
    if (pieces.ok()) {
      maker.AddWhole(tokenizer->EncodePrompt(*pieces, true));
    } else {
      maker.AddText(document);
    }
  }
  TokenWindows windows = maker.Take();
  if (windows.tokens() >= kFewestTokens) return windows;
  return absl::InvalidArgumentError(absl::StrCat("the text has ", windows.tokens(),
                                                 " tokens; a calibration needs ", kFewestTokens,
                                                 ", and is good from a few thousand on"));
}

TokenWindows TakeEvery(TokenWindows& windows, size_t period, uint64_t max_tokens) {
  TokenWindows taken, left;
  const size_t last = std::min(period, windows.windows.size()) - 1;
  uint64_t tokens = 0;
  for (size_t i = 0; i < windows.windows.size(); ++i) {
    std::vector<int32_t>& window = windows.windows[i];
    const bool take = i % period == last && tokens < max_tokens && windows.windows.size() > 1;
    if (take) tokens += window.size();
    (take ? taken : left).windows.push_back(std::move(window));
  }
  windows = std::move(left);
  return taken;
}

}  // namespace efedllm
