// The expressions in a template's tags, by Jinja's grammar.
#ifndef EFEDLLM_TEXT_JINJA_EXPRESSION_PARSER_H_
#define EFEDLLM_TEXT_JINJA_EXPRESSION_PARSER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/jinja/ast.h"
#include "text/jinja/token_stream.h"

namespace efedllm::jinja {

// Each function takes what it parses from the stream.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  absl::StatusOr<ExprPtr> Expression();            // a if b else c
  absl::StatusOr<ExprPtr> ExpressionOrTuple();     // a, b
  absl::StatusOr<ExprPtr> WithoutConditional();    // of `for x in ... if`
  absl::StatusOr<ExprPtr> FilterChain();           // name(...) | name(...), on operands[0] = null
  absl::StatusOr<ExprPtr> Filters(ExprPtr value);  // value | name ...

 private:
  using Parse = absl::StatusOr<ExprPtr> (ExpressionParser::*)();

  absl::StatusOr<ExprPtr> LeftToRight(Parse operand,
                                      const std::vector<absl::string_view>& operators);
  absl::StatusOr<ExprPtr> Or();
  absl::StatusOr<ExprPtr> And();
  absl::StatusOr<ExprPtr> Not();
  absl::StatusOr<ExprPtr> Compare();
  absl::StatusOr<ExprPtr> Sum();
  absl::StatusOr<ExprPtr> Concat();
  absl::StatusOr<ExprPtr> Product();
  absl::StatusOr<ExprPtr> Power();
  absl::StatusOr<ExprPtr> Unary();
  absl::StatusOr<ExprPtr> UnaryWithoutFilter();
  absl::StatusOr<ExprPtr> Primary();
  absl::StatusOr<ExprPtr> Number();
  absl::StatusOr<ExprPtr> Parenthesized();
  absl::StatusOr<ExprPtr> ListLiteral();
  absl::StatusOr<ExprPtr> DictLiteral();
  absl::StatusOr<ExprPtr> Postfix(ExprPtr value);
  absl::StatusOr<ExprPtr> Subscript(ExprPtr value);
  absl::StatusOr<ExprPtr> Test(ExprPtr value);
  absl::Status CallArguments(Expr& call);
  bool TupleEnds() const;

  // Checks the node's depth, which its operands give it.
  static absl::StatusOr<ExprPtr> Done(ExprPtr node);
  absl::StatusOr<ExprPtr> Nested(Parse parse);  // one level deeper, checked

  TokenStream& tokens_;
  int nesting_ = 0;
};

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_EXPRESSION_PARSER_H_
