#include "text/jinja/lexer.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace efedllm::jinja {
namespace {

using Kind = Token::Kind;

constexpr absl::string_view kOperators[] = {"//", "**", "==", "!=", "<=", ">=", "+", "-", "*",
                                            "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                            "]",  "{",  "}",  ".",  ",",  ":",  "|", ";"};

bool IsNameStart(char c) {
  return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80) != 0;
}
bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) RETURN_IF_ERROR(Outside());
    Add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool Sees(absl::string_view text) const { return absl::StartsWith(source_.substr(at_), text); }
  void Add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  // Moves on, counting lines.
  void Advance(size_t bytes) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                    source_.begin() + static_cast<ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
  }
  void SkipSpace() { Advance(source_.size() - at_ - TrimPythonStart(source_.substr(at_)).size()); }

  // Text up to the next tag, and that tag.
  absl::Status Outside() {
    size_t tag = source_.find('{', at_);
    while (tag != absl::string_view::npos && tag + 1 < source_.size() &&
           absl::string_view("{%#").find(source_[tag + 1]) == absl::string_view::npos) {
      tag = source_.find('{', tag + 1);
    }
    if (tag == absl::string_view::npos || tag + 1 >= source_.size()) tag = source_.size();
    absl::string_view data = source_.substr(at_, tag - at_);
    const absl::string_view rest = source_.substr(tag);
    const char mark = rest.size() > 2 ? rest[2] : ' ';
    if (mark == '-') {
      data = TrimPythonEnd(data);
    } else if (mark != '+' && !rest.empty() && rest[1] != '{') {
      data = WithoutIndent(data);
    }
    if (!data.empty()) Add(Kind::kData, std::string(data));
    Advance(tag - at_);
    if (rest.empty()) return absl::OkStatus();
    const bool is_marked = mark == '-' || (mark == '+' && rest[1] != '{');
    Advance(is_marked ? 3 : 2);
    switch (rest[1]) {
      case '#':
        return Comment();
      case '{':
        return Inside(Kind::kVariableBegin);
      default:
        return IsRaw() ? Raw() : Inside(Kind::kBlockBegin);
    }
  }

  // lstrip_blocks: what stands before a tag on its line goes, if it is only white space.
  absl::string_view WithoutIndent(absl::string_view data) const {
    const size_t newline = data.rfind('\n');
    if (newline == absl::string_view::npos) {
      const bool line_starts = at_ == 0 || source_[at_ - 1] == '\n';
      return line_starts && TrimPythonStart(data).empty() ? data.substr(0, 0) : data;
    }
    const absl::string_view indent = data.substr(newline + 1);
    return TrimPythonStart(indent).empty() ? data.substr(0, newline + 1) : data;
  }

  // Moves behind the end of a block or comment, which begins here.
  void EndTag(absl::string_view end) {
    if (Sees("-")) {
      Advance(1 + end.size());
      SkipSpace();
      return;
    }
    const bool keeps_newline = Sees("+");
    Advance((keeps_newline ? 1 : 0) + end.size());
    if (!keeps_newline && end != "}}" && Sees("\n")) Advance(1);  // trim_blocks
  }

  absl::Status Comment() {
    const size_t end = source_.find("#}", at_);
    if (end == absl::string_view::npos) return ErrorAt(line_, "a comment without #}");
    const char mark = end > at_ ? source_[end - 1] : ' ';
    Advance(end - at_ - (mark == '-' || mark == '+' ? 1 : 0));
    EndTag("#}");
    return absl::OkStatus();
  }

  // Behind "{%": is this {% raw %} (or the end of one)?
  bool IsRaw(absl::string_view name = "raw") const {
    absl::string_view rest = TrimPythonStart(source_.substr(at_));
    if (!absl::ConsumePrefix(&rest, name)) return false;
    rest = TrimPythonStart(rest);
    return absl::StartsWith(rest, "%}") || absl::StartsWith(rest, "-%}") ||
           absl::StartsWith(rest, "+%}");
  }

  absl::Status Raw() {
    const int first_line = line_;
    Advance(source_.find('%', at_) - at_ - (source_[source_.find('%', at_) - 1] == '-' ? 1 : 0));
    EndTag("%}");
    const size_t begin = at_;
    for (size_t tag = source_.find("{%", at_); tag != absl::string_view::npos;
         tag = source_.find("{%", tag + 2)) {
      absl::string_view data = source_.substr(begin, tag - begin);
      Advance(tag + 2 - at_);
      const bool trims = Sees("-");
      if (trims) Advance(1);
      if (!IsRaw("endraw")) continue;
      data = trims ? TrimPythonEnd(data) : data;
      if (!data.empty()) Add(Kind::kData, std::string(data));
      const size_t end = source_.find('%', at_);
      Advance(end - at_ - (source_[end - 1] == '-' ? 1 : 0));
      EndTag("%}");
      return absl::OkStatus();
    }
    return ErrorAt(first_line, "{% raw %} without {% endraw %}");
  }

  // The tokens of one {{ }} or {% %}.
  absl::Status Inside(Kind begin) {
    const bool is_block = begin == Kind::kBlockBegin;
    const absl::string_view end = is_block ? "%}" : "}}";
    const int first_line = line_;
    Add(begin, "");
    std::string open;  // brackets
    while (true) {
      SkipSpace();
      if (at_ >= source_.size()) {
        return ErrorAt(first_line, absl::StrCat("a tag without its ", end));
      }
      const bool marked = Sees(absl::StrCat("-", end)) || (is_block && Sees("+%}"));
      if (open.empty() && (marked || Sees(end))) {
        Add(is_block ? Kind::kBlockEnd : Kind::kVariableEnd, "");
        EndTag(end);
        return absl::OkStatus();
      }
      RETURN_IF_ERROR(One(open));
    }
  }

  absl::Status One(std::string& open) {
    const char c = source_[at_];
    if (IsNameStart(c)) {
      AddWhile(Kind::kName, [](char d) { return IsNameStart(d) || IsDigit(d); });
      return absl::OkStatus();
    }
    if (IsDigit(c)) return Number();
    if (c == '"' || c == '\'') return String(c);
    for (const absl::string_view op : kOperators) {
      if (!Sees(op)) continue;
      RETURN_IF_ERROR(Balance(op[0], open));
      Add(Kind::kOperator, std::string(op));
      Advance(op.size());
      return absl::OkStatus();
    }
    return ErrorAt(line_, absl::StrCat("unexpected \"", Printable(source_.substr(at_, 1)), "\""));
  }

  absl::Status Balance(char c, std::string& open) const {
    if (c == '(') open += ')';
    if (c == '[') open += ']';
    if (c == '{') open += '}';
    if (c != ')' && c != ']' && c != '}') return absl::OkStatus();
    if (open.empty() || open.back() != c) {
      return ErrorAt(line_, absl::StrCat("unexpected \"", std::string(1, c), "\""));
    }
    open.pop_back();
    return absl::OkStatus();
  }

  template <typename Is>
  void AddWhile(Kind kind, const Is& is) {
    size_t end = at_;
    while (end < source_.size() && is(source_[end])) ++end;
    Add(kind, std::string(source_.substr(at_, end - at_)));
    at_ = end;
  }

  absl::Status Number() {
    const auto skip_digits = [this](size_t i) {
      while (i < source_.size() && (IsDigit(source_[i]) || source_[i] == '_')) ++i;
      return i;
    };
    const auto is_digit_at = [this](size_t i) { return i < source_.size() && IsDigit(source_[i]); };
    size_t end = skip_digits(at_);
    const size_t integer_end = end;
    if (end < source_.size() && source_[end] == '.' && is_digit_at(end + 1)) {
      end = skip_digits(end + 1);
    }
    if (end < source_.size() && (source_[end] | 0x20) == 'e') {
      const size_t sign =
          end + 1 < source_.size() && absl::StrContains("+-", source_.substr(end + 1, 1));
      if (is_digit_at(end + 1 + sign)) end = skip_digits(end + 1 + sign);
    }
    const std::string digits = absl::StrReplaceAll(source_.substr(at_, end - at_), {{"_", ""}});
    Add(end > integer_end ? Kind::kFloat : Kind::kInteger, digits);
    at_ = end;
    return absl::OkStatus();
  }

  absl::Status String(char quote) {
    const int first_line = line_;
    std::string text;
    for (size_t i = at_ + 1; i < source_.size(); ++i) {
      if (source_[i] == quote) {
        tokens_.push_back({Kind::kString, std::move(text), first_line});
        Advance(i + 1 - at_);
        return absl::OkStatus();
      }
      if (source_[i] == '\\' && i + 1 < source_.size()) {
        i += AppendEscape(i + 1, text);
      } else {
        text += source_[i];
      }
    }
    return ErrorAt(first_line, "a string without its closing quote");
  }

  // Resolves the escape behind the backslash, as Python does; unknown ones stay. Returns its bytes.
  size_t AppendEscape(size_t i, std::string& text) const {
    constexpr absl::string_view kLetters = "ntr\\'\"abfv0\n";
    constexpr absl::string_view kMeanings("\n\t\r\\'\"\a\b\f\v\0", 11);
    const size_t known = kLetters.find(source_[i]);
    if (known < kMeanings.size()) {
      text += kMeanings[known];
      return 1;
    }
    if (source_[i] == '\n') return 1;  // a line that goes on
    const size_t digits = source_[i] == 'x' ? 2 : source_[i] == 'u' ? 4 : source_[i] == 'U' ? 8 : 0;
    uint32_t code_point = 0;
    const absl::string_view hex = source_.substr(i + 1, digits);
    if (digits > 0 && hex.size() == digits &&
        std::all_of(hex.begin(), hex.end(),
                    [](unsigned char c) { return absl::ascii_isxdigit(c); }) &&
        absl::SimpleHexAtoi(hex, &code_point) && code_point <= 0x10ffff) {
      text += EncodeUtf8(code_point);
      return 1 + digits;
    }
    text += '\\';
    text += source_[i];
    return 1;
  }

  absl::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  std::string lines = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (!lines.empty() && lines.back() == '\n') lines.pop_back();
  return Lexer(lines).Run();
}

absl::Status ErrorAt(int line, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", message));
}

absl::Status AtLine(int line, const absl::Status& status) {
  if (status.ok() || absl::StartsWith(status.message(), "line ")) return status;
  return absl::Status(status.code(), absl::StrCat("line ", line, ": ", status.message()));
}

}  // namespace efedllm::jinja
