#include "text/jinja/expression_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "common/status_macros.h"
#include "text/jinja/parser.h"

namespace efedllm::jinja {
namespace {

using Kind = Expr::Kind;

ExprPtr Make(Kind kind, int line, std::string name = "") {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  node->name = std::move(name);
  return node;
}

ExprPtr Make(Kind kind, int line, ExprPtr first, std::string name = "") {
  ExprPtr node = Make(kind, line, std::move(name));
  node->operands.push_back(std::move(first));
  return node;
}

absl::Status TooDeep(int line) {
  return ErrorAt(line, absl::StrCat("an expression is nested deeper than ", kMaxDepth));
}

}  // namespace

absl::StatusOr<ExprPtr> ExpressionParser::Done(ExprPtr node) {
  for (const ExprPtr& operand : node->operands) {
    if (operand != nullptr) node->depth = std::max(node->depth, operand->depth + 1);
  }
  for (const auto& [name, value] : node->named) {
    node->depth = std::max(node->depth, value->depth + 1);
  }
  if (node->depth > kMaxDepth) return TooDeep(node->line);
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::Nested(Parse parse) {
  if (nesting_ >= kMaxDepth) return TooDeep(tokens_.line());
  ++nesting_;
  absl::StatusOr<ExprPtr> node = (this->*parse)();
  --nesting_;
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::Expression() {
  ASSIGN_OR_RETURN(ExprPtr value, Nested(&ExpressionParser::Or));
  while (tokens_.SeesName("if")) {
    ExprPtr node = Make(Kind::kConditional, tokens_.Take().line, std::move(value));
    ASSIGN_OR_RETURN(node->operands.emplace_back(), Nested(&ExpressionParser::Or));
    node->operands.emplace_back();
    if (tokens_.SkipName("else")) {
      ASSIGN_OR_RETURN(node->operands.back(), Nested(&ExpressionParser::Expression));
    }
    ASSIGN_OR_RETURN(value, Done(std::move(node)));
  }
  return value;
}

absl::StatusOr<ExprPtr> ExpressionParser::WithoutConditional() {
  return Nested(&ExpressionParser::Or);
}

bool ExpressionParser::TupleEnds() const {
  return tokens_.Sees(Token::Kind::kBlockEnd) || tokens_.Sees(Token::Kind::kVariableEnd) ||
         tokens_.SeesOperator(")");
}

absl::StatusOr<ExprPtr> ExpressionParser::ExpressionOrTuple() {
  const int line = tokens_.line();
  ASSIGN_OR_RETURN(ExprPtr first, Expression());
  if (!tokens_.SeesOperator(",")) return first;
  ExprPtr tuple = Make(Kind::kTuple, line, std::move(first));
  while (tokens_.SkipOperator(",") && !TupleEnds()) {
    ASSIGN_OR_RETURN(tuple->operands.emplace_back(), Expression());
  }
  return Done(std::move(tuple));
}

absl::StatusOr<ExprPtr> ExpressionParser::LeftToRight(
    Parse operand, const std::vector<absl::string_view>& operators) {
  ASSIGN_OR_RETURN(ExprPtr left, (this->*operand)());
  const auto sees_one = [&] {
    return tokens_.Sees(Token::Kind::kOperator) &&
           std::find(operators.begin(), operators.end(), tokens_.now().text) != operators.end();
  };
  while (sees_one()) {
    const Token op = tokens_.Take();
    ExprPtr node = Make(Kind::kBinary, op.line, std::move(left), op.text);
    ASSIGN_OR_RETURN(node->operands.emplace_back(), (this->*operand)());
    ASSIGN_OR_RETURN(left, Done(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::Or() {
  ASSIGN_OR_RETURN(ExprPtr left, And());
  while (tokens_.SeesName("or")) {
    ExprPtr node = Make(Kind::kOr, tokens_.Take().line, std::move(left));
    ASSIGN_OR_RETURN(node->operands.emplace_back(), And());
    ASSIGN_OR_RETURN(left, Done(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::And() {
  ASSIGN_OR_RETURN(ExprPtr left, Not());
  while (tokens_.SeesName("and")) {
    ExprPtr node = Make(Kind::kAnd, tokens_.Take().line, std::move(left));
    ASSIGN_OR_RETURN(node->operands.emplace_back(), Not());
    ASSIGN_OR_RETURN(left, Done(std::move(node)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::Not() {
  if (!tokens_.SeesName("not")) return Compare();
  const int line = tokens_.Take().line;
  ASSIGN_OR_RETURN(ExprPtr value, Nested(&ExpressionParser::Not));
  return Done(Make(Kind::kNot, line, std::move(value)));
}

absl::StatusOr<ExprPtr> ExpressionParser::Compare() {
  ASSIGN_OR_RETURN(ExprPtr first, Sum());
  ExprPtr node = Make(Kind::kCompare, tokens_.line(), std::move(first));
  while (true) {
    std::string op;
    if (tokens_.SeesName("in")) {
      op = tokens_.Take().text;
    } else if (tokens_.SeesName("not") && tokens_.next().Is(Token::Kind::kName, "in")) {
      tokens_.Take();
      tokens_.Take();
      op = "not in";
    } else {
      constexpr absl::string_view kComparisons[] = {"==", "!=", "<", "<=", ">", ">="};
      const bool compares = std::any_of(std::begin(kComparisons), std::end(kComparisons),
                                        [this](auto text) { return tokens_.SeesOperator(text); });
      if (!compares) break;
      op = tokens_.Take().text;
    }
    node->comparisons.push_back(std::move(op));
    ASSIGN_OR_RETURN(node->operands.emplace_back(), Sum());
  }
  if (node->comparisons.empty()) return std::move(node->operands[0]);
  return Done(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::Sum() {
  return LeftToRight(&ExpressionParser::Concat, {"+", "-"});
}

absl::StatusOr<ExprPtr> ExpressionParser::Concat() {
  ASSIGN_OR_RETURN(ExprPtr first, Product());
  if (!tokens_.SeesOperator("~")) return first;
  ExprPtr node = Make(Kind::kConcat, tokens_.line(), std::move(first));
  while (tokens_.SkipOperator("~")) {
    ASSIGN_OR_RETURN(node->operands.emplace_back(), Product());
  }
  return Done(std::move(node));
}

absl::StatusOr<ExprPtr> ExpressionParser::Product() {
  return LeftToRight(&ExpressionParser::Power, {"*", "/", "//", "%"});
}

absl::StatusOr<ExprPtr> ExpressionParser::Power() {
  return LeftToRight(&ExpressionParser::Unary, {"**"});
}

absl::StatusOr<ExprPtr> ExpressionParser::Unary() {
  ASSIGN_OR_RETURN(ExprPtr value, UnaryWithoutFilter());
  return Filters(std::move(value));
}

absl::StatusOr<ExprPtr> ExpressionParser::UnaryWithoutFilter() {
  const bool minus = tokens_.SeesOperator("-");
  if (!minus && !tokens_.SeesOperator("+")) {
    ASSIGN_OR_RETURN(ExprPtr value, Primary());
    return Postfix(std::move(value));
  }
  const int line = tokens_.Take().line;
  ASSIGN_OR_RETURN(ExprPtr value, Nested(&ExpressionParser::UnaryWithoutFilter));
  return Done(Make(minus ? Kind::kMinus : Kind::kPlus, line, std::move(value)));
}

absl::StatusOr<ExprPtr> ExpressionParser::Primary() {
  using TokenKind = Token::Kind;
  const int line = tokens_.line();
  if (tokens_.Sees(TokenKind::kName)) {
    const std::string name = tokens_.Take().text;
    ExprPtr node = Make(Kind::kLiteral, line);
    if (name == "none" || name == "None") return node;
    if (name == "true" || name == "True" || name == "false" || name == "False") {
      node->literal = name == "true" || name == "True";
      return node;
    }
    return Make(Kind::kName, line, name);
  }
  if (tokens_.Sees(TokenKind::kString)) {
    ExprPtr node = Make(Kind::kString, line);
    while (tokens_.Sees(TokenKind::kString)) node->name += tokens_.Take().text;
    return node;
  }
  if (tokens_.Sees(TokenKind::kInteger) || tokens_.Sees(TokenKind::kFloat)) return Number();
  if (tokens_.SeesOperator("(")) return Nested(&ExpressionParser::Parenthesized);
  if (tokens_.SeesOperator("[")) return Nested(&ExpressionParser::ListLiteral);
  if (tokens_.SeesOperator("{")) return Nested(&ExpressionParser::DictLiteral);
  return tokens_.Unexpected("an expression");
}

absl::StatusOr<ExprPtr> ExpressionParser::Number() {
  const Token token = tokens_.Take();
  ExprPtr node = Make(Kind::kLiteral, token.line);
  int64_t whole = 0;
  double number = 0;
  if (token.kind == Token::Kind::kInteger && absl::SimpleAtoi(token.text, &whole)) {
    node->literal = whole;
  } else if (token.kind == Token::Kind::kFloat && absl::SimpleAtod(token.text, &number)) {
    node->literal = number;
  } else {
    return ErrorAt(token.line, absl::StrCat("the number ", token.text, " is too large"));
  }
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::Parenthesized() {
  const int line = tokens_.Take().line;
  if (tokens_.SkipOperator(")")) return Make(Kind::kTuple, line);
  ASSIGN_OR_RETURN(ExprPtr value, ExpressionOrTuple());
  RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  return value;
}

absl::StatusOr<ExprPtr> ExpressionParser::ListLiteral() {
  ExprPtr list = Make(Kind::kList, tokens_.Take().line);
  while (!tokens_.SeesOperator("]")) {
    if (!list->operands.empty()) RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.SeesOperator("]")) break;
    ASSIGN_OR_RETURN(list->operands.emplace_back(), Expression());
  }
  tokens_.Take();
  return Done(std::move(list));
}

absl::StatusOr<ExprPtr> ExpressionParser::DictLiteral() {
  ExprPtr dict = Make(Kind::kDict, tokens_.Take().line);
  while (!tokens_.SeesOperator("}")) {
    if (!dict->operands.empty()) RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.SeesOperator("}")) break;
    ASSIGN_OR_RETURN(dict->operands.emplace_back(), Expression());
    RETURN_IF_ERROR(tokens_.ExpectOperator(":"));
    ASSIGN_OR_RETURN(dict->operands.emplace_back(), Expression());
  }
  tokens_.Take();
  return Done(std::move(dict));
}

absl::StatusOr<ExprPtr> ExpressionParser::Postfix(ExprPtr value) {
  while (true) {
    const int line = tokens_.line();
    if (tokens_.SkipOperator(".")) {
      if (tokens_.Sees(Token::Kind::kInteger)) {
        ExprPtr node = Make(Kind::kItem, line, std::move(value));
        ASSIGN_OR_RETURN(node->operands.emplace_back(), Number());
        ASSIGN_OR_RETURN(value, Done(std::move(node)));
        continue;
      }
      ASSIGN_OR_RETURN(std::string name, tokens_.TakeName("an attribute's name"));
      ASSIGN_OR_RETURN(value,
                       Done(Make(Kind::kAttribute, line, std::move(value), std::move(name))));
    } else if (tokens_.SkipOperator("[")) {
      ASSIGN_OR_RETURN(value, Subscript(std::move(value)));
    } else if (tokens_.SeesOperator("(")) {
      ExprPtr call = Make(Kind::kCall, line, std::move(value));
      RETURN_IF_ERROR(CallArguments(*call));
      ASSIGN_OR_RETURN(value, Done(std::move(call)));
    } else {
      return value;
    }
  }
}

// Behind the "[".
absl::StatusOr<ExprPtr> ExpressionParser::Subscript(ExprPtr value) {
  ExprPtr node = Make(Kind::kItem, tokens_.line(), std::move(value));
  if (!tokens_.SeesOperator(":")) {
    ASSIGN_OR_RETURN(node->operands.emplace_back(), Expression());
    if (tokens_.SkipOperator("]")) return Done(std::move(node));
    if (!tokens_.SeesOperator(":")) return tokens_.Unexpected("\"]\"");
  } else {
    node->operands.emplace_back();
  }
  node->kind = Kind::kSlice;
  while (node->operands.size() < 4) {
    ExprPtr& part = node->operands.emplace_back();
    if (!tokens_.SkipOperator(":") || tokens_.SeesOperator(":") || tokens_.SeesOperator("]")) {
      continue;
    }
    ASSIGN_OR_RETURN(part, Expression());
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  return Done(std::move(node));
}

absl::Status ExpressionParser::CallArguments(Expr& call) {
  const size_t first = call.operands.size();
  RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  while (!tokens_.SeesOperator(")")) {
    if (call.operands.size() > first || !call.named.empty()) {
      RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      if (tokens_.SeesOperator(")")) break;
    }
    if (tokens_.SeesOperator("*") || tokens_.SeesOperator("**")) {
      return ErrorAt(tokens_.line(), "*args and **kwargs in a call are not supported");
    }
    if (tokens_.Sees(Token::Kind::kName) && tokens_.next().Is(Token::Kind::kOperator, "=")) {
      std::string name = tokens_.Take().text;
      tokens_.Take();
      ASSIGN_OR_RETURN(ExprPtr value, Expression());
      call.named.emplace_back(std::move(name), std::move(value));
    } else if (!call.named.empty()) {
      return ErrorAt(tokens_.line(), "an argument without a name stands behind one with a name");
    } else {
      ASSIGN_OR_RETURN(call.operands.emplace_back(), Expression());
    }
  }
  tokens_.Take();
  return absl::OkStatus();
}

absl::StatusOr<ExprPtr> ExpressionParser::Filters(ExprPtr value) {
  while (true) {
    const int line = tokens_.line();
    if (tokens_.SkipOperator("|")) {
      ASSIGN_OR_RETURN(std::string name, tokens_.TakeName("a filter's name"));
      ExprPtr filter = Make(Kind::kFilter, line, std::move(value), std::move(name));
      if (tokens_.SeesOperator("(")) RETURN_IF_ERROR(CallArguments(*filter));
      ASSIGN_OR_RETURN(value, Done(std::move(filter)));
    } else if (tokens_.SkipName("is")) {
      ASSIGN_OR_RETURN(value, Test(std::move(value)));
    } else if (tokens_.SeesOperator("(")) {
      ExprPtr call = Make(Kind::kCall, line, std::move(value));
      RETURN_IF_ERROR(CallArguments(*call));
      ASSIGN_OR_RETURN(value, Done(std::move(call)));
    } else {
      return value;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::FilterChain() {
  ASSIGN_OR_RETURN(std::string name, tokens_.TakeName("a filter's name"));
  ExprPtr filter = Make(Kind::kFilter, tokens_.line(), ExprPtr(), std::move(name));
  if (tokens_.SeesOperator("(")) RETURN_IF_ERROR(CallArguments(*filter));
  ASSIGN_OR_RETURN(ExprPtr first, Done(std::move(filter)));
  return Filters(std::move(first));
}

// Behind the "is".
absl::StatusOr<ExprPtr> ExpressionParser::Test(ExprPtr value) {
  const int line = tokens_.line();
  const bool negated = tokens_.SkipName("not");
  ASSIGN_OR_RETURN(std::string name, tokens_.TakeName("a test's name"));
  ExprPtr test = Make(Kind::kTest, line, std::move(value), std::move(name));
  const bool is_keyword = tokens_.SeesName("else") || tokens_.SeesName("or") ||
                          tokens_.SeesName("and") || tokens_.SeesName("is") ||
                          tokens_.SeesName("if") || tokens_.SeesName("not") ||
                          tokens_.SeesName("in") || tokens_.SeesName("recursive");
  const bool has_argument =
      (tokens_.Sees(Token::Kind::kName) && !is_keyword) || tokens_.Sees(Token::Kind::kString) ||
      tokens_.Sees(Token::Kind::kInteger) || tokens_.Sees(Token::Kind::kFloat) ||
      tokens_.SeesOperator("[") || tokens_.SeesOperator("{");
  if (tokens_.SeesOperator("(")) {
    RETURN_IF_ERROR(CallArguments(*test));
  } else if (has_argument) {
    ASSIGN_OR_RETURN(ExprPtr argument, Nested(&ExpressionParser::Primary));
    ASSIGN_OR_RETURN(test->operands.emplace_back(), Postfix(std::move(argument)));
  }
  ASSIGN_OR_RETURN(ExprPtr done, Done(std::move(test)));
  return negated ? Done(Make(Kind::kNot, line, std::move(done))) : std::move(done);
}

}  // namespace efedllm::jinja
