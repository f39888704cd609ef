// The tokens of a template, one after the other.
#ifndef EFEDLLM_TEXT_JINJA_TOKEN_STREAM_H_
#define EFEDLLM_TEXT_JINJA_TOKEN_STREAM_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/logging.h"
#include "text/jinja/lexer.h"

namespace efedllm::jinja {

class TokenStream {
 public:
  using Kind = Token::Kind;

  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& now() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  int line() const { return now().line; }
  Token Take() {
    Token token = now();
    if (at_ + 1 < tokens_.size()) ++at_;  // kEnd stays
    return token;
  }

  bool Sees(Kind kind) const { return now().kind == kind; }
  bool SeesOperator(absl::string_view text) const { return now().Is(Kind::kOperator, text); }
  bool SeesName(absl::string_view text) const { return now().Is(Kind::kName, text); }
  bool SkipOperator(absl::string_view text) { return SeesOperator(text) && Skip(); }
  bool SkipName(absl::string_view text) { return SeesName(text) && Skip(); }

  absl::Status Expect(Kind kind, absl::string_view what) {
    if (!Sees(kind)) return Unexpected(what);
    Take();
    return absl::OkStatus();
  }
  absl::Status ExpectOperator(absl::string_view text) {
    return SkipOperator(text) ? absl::OkStatus() : Unexpected(absl::StrCat("\"", text, "\""));
  }
  absl::Status ExpectName(absl::string_view text) {
    return SkipName(text) ? absl::OkStatus() : Unexpected(absl::StrCat("\"", text, "\""));
  }
  absl::StatusOr<std::string> TakeName(absl::string_view what) {
    if (!Sees(Kind::kName)) return Unexpected(what);
    return Take().text;
  }

  absl::Status Unexpected(absl::string_view wanted) const {
    return ErrorAt(line(), absl::StrCat("expected ", wanted, ", not ", Described(now())));
  }

 private:
  static std::string Described(const Token& token) {
    switch (token.kind) {
      case Kind::kEnd:
        return "the end of the template";
      case Kind::kBlockEnd:
        return "%}";
      case Kind::kVariableEnd:
        return "}}";
      default:
        return absl::StrCat("\"", Printable(token.text, 40), "\"");
    }
  }
  bool Skip() {
    Take();
    return true;
  }

  const std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_TOKEN_STREAM_H_
