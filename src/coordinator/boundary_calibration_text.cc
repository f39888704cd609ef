#include "coordinator/boundary_calibration_text.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace efedllm {
namespace {

constexpr size_t kLongestWindow = 1024;
constexpr absl::string_view kMark = "%%%";  // begins the line in front of a document
constexpr uint64_t kFewestTokens = 64;
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

struct Document {
  std::string kind;
  absl::string_view text;
};

std::vector<Document> DocumentsOf(absl::string_view text) {
  std::vector<Document> documents(1);
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const size_t line_bytes = end == absl::string_view::npos ? text.size() : end + 1;
    absl::string_view line = text.substr(0, line_bytes);
    if (absl::ConsumePrefix(&line, kMark)) {
      documents.push_back({std::string(absl::StripAsciiWhitespace(line)), {}});
    } else {
      // Lines lie behind each other.
      Document& document = documents.back();
      const char* begin = document.text.empty() ? text.data() : document.text.data();
      document.text = {begin, static_cast<size_t>(text.data() + line_bytes - begin)};
    }
    text.remove_prefix(line_bytes);
  }
  return documents;
}

// Collects the tokens of documents into windows.
class WindowMaker {
 public:
  WindowMaker(const Tokenizer& tokenizer, const WindowLimits& limits)
      : tokenizer_(tokenizer),
        limits_(limits),
        longest_(std::min<size_t>(limits.context, kLongestWindow)) {
    const std::vector<int32_t> special = tokenizer.Encode("", {.add_special = true});
    if (!special.empty() && special[0] == tokenizer.bos()) begin_ = {tokenizer.bos()};
  }

  bool Wants(const std::string& kind) {
    const bool named = limits_.kinds.empty() || absl::c_linear_search(limits_.kinds, kind);
    return named && Room(kind) > 0;
  }

  void AddText(const std::string& kind, absl::string_view text) {
    std::vector<int32_t>& running = running_[kind];
    for (const int32_t token : tokenizer_.Encode(text, {.add_special = false})) {
      const uint64_t room = Room(kind);
      if (room == 0) return;
      if (running.empty()) running = begin_;
      running.push_back(token);
      if (running.size() >= std::min<uint64_t>(longest_, room)) {
        AddWhole(kind, std::exchange(running, {}));
      }
    }
  }

  // A window of its own.
  void AddWhole(const std::string& kind, std::vector<int32_t> tokens) {
    tokens.resize(std::min<uint64_t>({tokens.size(), longest_, Room(kind)}));
    if (tokens.empty()) return;
    taken_ += tokens.size();
    taken_of_[kind] += tokens.size();
    windows_.windows.push_back(std::move(tokens));
    windows_.kinds.push_back(kind);
  }

  TokenWindows Take() {
    for (auto& [kind, running] : running_) AddWhole(kind, std::exchange(running, {}));
    return std::move(windows_);
  }

 private:
  uint64_t Room(const std::string& kind) {
    const uint64_t all = limits_.tokens - taken_;
    if (limits_.tokens_per_kind == 0) return all;
    return std::min(all, limits_.tokens_per_kind - taken_of_[kind]);
  }

  const Tokenizer& tokenizer_;
  const WindowLimits& limits_;
  const size_t longest_;
  std::vector<int32_t> begin_;
  uint64_t taken_ = 0;
  std::map<std::string, uint64_t> taken_of_;
  std::map<std::string, std::vector<int32_t>> running_;  // the window that isn't full, of each kind
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

absl::StatusOr<TokenWindows> CutWindows(const ModelFile& file, absl::string_view text,
                                        const WindowLimits& limits) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(file));
  const absl::StatusOr<ChatTemplate> chat = ChatTemplate::ForModel(file, *tokenizer);
  WindowMaker maker(*tokenizer, limits);
  for (const Document& document : DocumentsOf(text)) {
    if (document.text.empty() || !maker.Wants(document.kind)) continue;
    absl::StatusOr<std::vector<PromptPiece>> pieces = absl::NotFoundError("no chat");
    if (chat.ok() && IsChat(document.text)) {
      // Templates that tell the date must not make each calibration another.
      pieces = chat->Render(MessagesOf(document.text),
                            {.add_generation_prompt = false, .now = absl::UnixEpoch()});
    }
    if (pieces.ok()) {
      maker.AddWhole(document.kind, tokenizer->EncodePrompt(*pieces, true));
    } else {
      maker.AddText(document.kind, document.text);
    }
  }
  return maker.Take();
}

absl::StatusOr<TokenWindows> CalibrationWindows(const ModelFile& file, absl::string_view text,
                                                uint32_t context, uint64_t max_tokens) {
  ASSIGN_OR_RETURN(TokenWindows windows,
                   CutWindows(file, text, {.context = context, .tokens = max_tokens}));
  if (windows.tokens() >= kFewestTokens) return windows;
  return absl::InvalidArgumentError(absl::StrCat("the text has ", windows.tokens(),
                                                 " tokens; a calibration needs ", kFewestTokens,
                                                 ", and is good from a few thousand on"));
}

TokenWindows TakeSome(TokenWindows& windows, uint64_t tokens) {
  const double total = static_cast<double>(windows.tokens());
  const double share = std::min(static_cast<double>(tokens) / total, 1.0 / 3);
  TokenWindows taken, left;
  double due = 0;  // tokens that should have moved over by now
  for (size_t i = 0; i < windows.windows.size(); ++i) {
    std::vector<int32_t>& window = windows.windows[i];
    const auto size = static_cast<double>(window.size());
    due += share * size;
    const bool take = due >= size / 2 && windows.windows.size() > 1;
    if (take) due -= size;
    TokenWindows& to = take ? taken : left;
    to.windows.push_back(std::move(window));
    to.kinds.push_back(std::move(windows.kinds[i]));
  }
  windows = std::move(left);
  return taken;
}

}  // namespace efedllm
