#include "text/text_stream.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace efedllm {
namespace {

constexpr absl::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// The longest beginning of `stop` that the first `matched` bytes and then `byte` end with.
size_t Advance(const std::string& stop, const std::vector<size_t>& border, size_t matched,
               char byte) {
  if (matched == stop.size()) matched = border[matched];
  while (matched > 0 && stop[matched] != byte) matched = border[matched];
  return stop[matched] == byte ? matched + 1 : 0;
}

}  // namespace

TextStream::TextStream(std::vector<std::string> stop_strings) {
  for (std::string& stop : stop_strings) {
    if (stop.empty()) continue;
    Matcher matcher;
    matcher.stop = std::move(stop);
    matcher.border.assign(matcher.stop.size() + 1, 0);
    for (size_t n = 1; n < matcher.stop.size(); ++n) {
      matcher.border[n + 1] =
          Advance(matcher.stop, matcher.border, matcher.border[n], matcher.stop[n]);
    }
    matchers_.push_back(std::move(matcher));
  }
}

std::string TextStream::Append(absl::string_view piece_bytes) {
  if (stopped_) return "";
  partial_.append(piece_bytes.data(), piece_bytes.size());
  TakeCharacters();
  return Match(std::exchange(fresh_, ""));
}

std::string TextStream::Finish() {
  if (stopped_) return "";
  std::string text = Match(partial_.empty() ? "" : kReplacement);
  partial_.clear();
  if (stopped_) return text;
  stopped_ = stop_at_.has_value();
  text += held_.substr(0, stop_at_.value_or(held_.size()));
  held_.clear();
  for (Matcher& matcher : matchers_) matcher.matched = 0;
  return text;
}

// Moves what is decided from partial_ to fresh_.
void TextStream::TakeCharacters() {
  absl::string_view rest = partial_;
  while (!rest.empty()) {
    const Utf8Char c = DecodeUtf8(rest);
    if (c.kind == Utf8Char::Kind::kIncomplete) break;
    const absl::string_view taken =
        c.kind == Utf8Char::Kind::kValid ? rest.substr(0, c.bytes) : kReplacement;
    fresh_.append(taken.data(), taken.size());
    rest.remove_prefix(c.bytes);
  }
  partial_.erase(0, partial_.size() - rest.size());
}

std::string TextStream::Match(absl::string_view text) {
  for (const char byte : text) {
    held_.push_back(byte);
    for (Matcher& matcher : matchers_) {
      matcher.matched = Advance(matcher.stop, matcher.border, matcher.matched, byte);
      if (matcher.matched < matcher.stop.size()) continue;
      const size_t begin = held_.size() - matcher.stop.size();
      stop_at_ = std::min(stop_at_.value_or(begin), begin);
    }
    if (stop_at_.has_value() && *stop_at_ <= FirstUnsure()) {
      stopped_ = true;
      return held_.substr(0, *stop_at_);
    }
  }
  const size_t sure = FirstUnsure();
  std::string result = held_.substr(0, sure);
  held_.erase(0, sure);
  if (stop_at_.has_value()) *stop_at_ -= sure;
  return result;
}

// Where in held_ the earliest stop string may have begun that isn't complete.
size_t TextStream::FirstUnsure() const {
  size_t longest = 0;
  for (const Matcher& matcher : matchers_) {
    const bool complete = matcher.matched == matcher.stop.size();
    longest = std::max(longest, complete ? matcher.border[matcher.matched] : matcher.matched);
  }
  return held_.size() - longest;
}

}  // namespace efedllm
