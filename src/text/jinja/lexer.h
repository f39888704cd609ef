// Jinja source -> tokens, with the white space rules that transformers sets for chat templates:
// trim_blocks and lstrip_blocks on, one newline at the source's end dropped.
#ifndef EFEDLLM_TEXT_JINJA_LEXER_H_
#define EFEDLLM_TEXT_JINJA_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm::jinja {

struct Token {
  enum class Kind {
    kData,           // text outside of any tag
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kName,
    kString,  // escapes resolved
    kInteger,
    kFloat,
    kOperator,
    kEnd,  // the last token of every source
  };
  Kind kind;
  std::string text;
  int line;  // from 1

  bool Is(Kind k, absl::string_view t) const { return kind == k && text == t; }
};

// InvalidArgument: "line N: " and what is wrong there.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

// A status about this line; one that already names a line stays as it is.
absl::Status AtLine(int line, const absl::Status& status);
absl::Status ErrorAt(int line, absl::string_view message);

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_LEXER_H_
