#include "text/jinja/parser.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "text/jinja/expression_parser.h"
#include "text/jinja/token_stream.h"

namespace efedllm::jinja {
namespace {

using Kind = Stmt::Kind;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)), expressions_(tokens_) {}

  absl::StatusOr<Block> Template() {
    ASSIGN_OR_RETURN(Block block, Until({}));
    return block;
  }

 private:
  // Statements up to a tag that one of the words begins, which is left to the caller behind its
  // "{%"; without words up to the end.
  absl::StatusOr<Block> Until(const std::vector<absl::string_view>& words) {
    if (++nesting_ > kMaxDepth) {
      return ErrorAt(tokens_.line(), absl::StrCat("blocks are nested deeper than ", kMaxDepth));
    }
    const int first_line = tokens_.line();
    Block block;
    while (!tokens_.Sees(Token::Kind::kEnd)) {
      if (tokens_.Sees(Token::Kind::kData)) {
        Stmt& text = Add(block, Kind::kText);
        text.text = tokens_.Take().text;
      } else if (tokens_.Sees(Token::Kind::kVariableBegin)) {
        Stmt& print = Add(block, Kind::kPrint);
        tokens_.Take();
        ASSIGN_OR_RETURN(print.value, expressions_.ExpressionOrTuple());
        RETURN_IF_ERROR(tokens_.Expect(Token::Kind::kVariableEnd, "}}"));
      } else {
        tokens_.Take();  // {%
        for (const absl::string_view word : words) {
          if (!tokens_.SeesName(word)) continue;
          --nesting_;
          return block;
        }
        RETURN_IF_ERROR(Statement(block));
      }
    }
    if (!words.empty()) {
      return ErrorAt(first_line, absl::StrCat("{% ", words.back(), " %} is missing"));
    }
    --nesting_;
    return block;
  }

  Stmt& Add(Block& block, Kind kind) const {
    Stmt& stmt = block.emplace_back();
    stmt.kind = kind;
    stmt.line = tokens_.line();
    return stmt;
  }

  absl::Status EndTag() { return tokens_.Expect(Token::Kind::kBlockEnd, "%}"); }

  // The body of a block whose tag ends here, up to and with its end tag.
  absl::Status Body(absl::string_view end, Block& body) {
    RETURN_IF_ERROR(EndTag());
    ASSIGN_OR_RETURN(body, Until({end}));
    tokens_.Take();
    if (end == "endmacro" && tokens_.Sees(Token::Kind::kName)) tokens_.Take();  // its name
    return EndTag();
  }

  absl::Status Statement(Block& block) {
    struct Tag {
      absl::string_view name;
      absl::Status (Parser::*parse)(Block&);
    };
    constexpr Tag kTags[] = {
        {"if", &Parser::If},       {"for", &Parser::For},
        {"set", &Parser::Set},     {"macro", &Parser::Macro},
        {"call", &Parser::Call},   {"filter", &Parser::Filter},
        {"with", &Parser::With},   {"generation", &Parser::Generation},
        {"break", &Parser::Break}, {"continue", &Parser::Continue},
    };
    const int line = tokens_.line();
    ASSIGN_OR_RETURN(const std::string name, tokens_.TakeName("a tag's name"));
    for (const Tag& tag : kTags) {
      if (tag.name == name) return AtLine(line, (this->*tag.parse)(block));
    }
    const bool ends = absl::StartsWith(name, "end") || name == "else" || name == "elif";
    return ErrorAt(
        line, absl::StrCat("{% ", name, " %} ",
                           ends ? "closes nothing here" : "is not supported in a chat template"));
  }

  absl::Status If(Block& block) {
    Stmt& stmt = Add(block, Kind::kIf);
    std::string word = "if";
    while (word != "endif") {
      Branch& branch = stmt.branches.emplace_back();
      const bool is_else = word == "else";
      if (!is_else) {
        ASSIGN_OR_RETURN(branch.condition, expressions_.ExpressionOrTuple());
      }
      RETURN_IF_ERROR(EndTag());
      const std::vector<absl::string_view> ends = {"elif", "else", "endif"};
      ASSIGN_OR_RETURN(branch.body,
                       Until(is_else ? std::vector<absl::string_view>{"endif"} : ends));
      word = tokens_.Take().text;
    }
    return EndTag();
  }

  absl::Status Targets(Stmt& stmt, bool with_attributes) {
    const bool in_parentheses = tokens_.SkipOperator("(");
    do {
      if (!stmt.targets.empty() && !tokens_.Sees(Token::Kind::kName)) break;  // a, b,
      Target& target = stmt.targets.emplace_back();
      ASSIGN_OR_RETURN(target.name, tokens_.TakeName("a name to set"));
      if (with_attributes && tokens_.SkipOperator(".")) {
        ASSIGN_OR_RETURN(target.attribute, tokens_.TakeName("an attribute's name"));
      }
      if (tokens_.SeesOperator(",")) stmt.unpacks = true;
      if (tokens_.SeesName("in")) break;
    } while (tokens_.SkipOperator(",") && !tokens_.SeesName("in"));
    return in_parentheses ? tokens_.ExpectOperator(")") : absl::OkStatus();
  }

  absl::Status For(Block& block) {
    Stmt& stmt = Add(block, Kind::kFor);
    RETURN_IF_ERROR(Targets(stmt, /*with_attributes=*/false));
    RETURN_IF_ERROR(tokens_.ExpectName("in"));
    ASSIGN_OR_RETURN(stmt.value, expressions_.WithoutConditional());
    if (tokens_.SkipName("if")) {
      ASSIGN_OR_RETURN(stmt.condition, expressions_.Expression());
    }
    if (tokens_.SeesName("recursive")) {
      return ErrorAt(stmt.line, "recursive loops are not supported");
    }
    RETURN_IF_ERROR(EndTag());
    ++loops_;
    ASSIGN_OR_RETURN(stmt.body, Until({"else", "endfor"}));
    --loops_;
    if (tokens_.Take().text == "else") {
      RETURN_IF_ERROR(EndTag());
      ASSIGN_OR_RETURN(stmt.otherwise, Until({"endfor"}));
      tokens_.Take();
    }
    return EndTag();
  }

  absl::Status Set(Block& block) {
    Stmt& stmt = Add(block, Kind::kSet);
    RETURN_IF_ERROR(Targets(stmt, /*with_attributes=*/true));
    if (tokens_.SkipOperator("=")) {
      ASSIGN_OR_RETURN(stmt.value, expressions_.ExpressionOrTuple());
      return EndTag();
    }
    stmt.kind = Kind::kSetBlock;
    if (tokens_.SkipOperator("|")) {
      ASSIGN_OR_RETURN(stmt.value, expressions_.FilterChain());
    }
    return Body("endset", stmt.body);
  }

  absl::Status Parameters(Stmt& stmt) {
    RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    while (!tokens_.SkipOperator(")")) {
      if (!stmt.parameters.empty()) RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      if (tokens_.SkipOperator(")")) break;
      Parameter& parameter = stmt.parameters.emplace_back();
      ASSIGN_OR_RETURN(parameter.name, tokens_.TakeName("a parameter's name"));
      if (tokens_.SkipOperator("=")) {
        ASSIGN_OR_RETURN(parameter.otherwise, expressions_.Expression());
      }
    }
    return absl::OkStatus();
  }

  absl::Status Macro(Block& block) {
    Stmt& stmt = Add(block, Kind::kMacro);
    ASSIGN_OR_RETURN(stmt.text, tokens_.TakeName("a macro's name"));
    RETURN_IF_ERROR(Parameters(stmt));
    return BodyOutsideLoops("endmacro", stmt.body);
  }

  // A break in there would not belong to the loop around it.
  absl::Status BodyOutsideLoops(absl::string_view end, Block& body) {
    const int loops = std::exchange(loops_, 0);
    RETURN_IF_ERROR(Body(end, body));
    loops_ = loops;
    return absl::OkStatus();
  }

  absl::Status Call(Block& block) {
    Stmt& stmt = Add(block, Kind::kCall);
    if (tokens_.SeesOperator("(")) RETURN_IF_ERROR(Parameters(stmt));
    ASSIGN_OR_RETURN(stmt.value, expressions_.Expression());
    if (stmt.value->kind != Expr::Kind::kCall) return ErrorAt(stmt.line, "{% call %} needs a call");
    return BodyOutsideLoops("endcall", stmt.body);
  }

  absl::Status Filter(Block& block) {
    Stmt& stmt = Add(block, Kind::kFilter);
    ASSIGN_OR_RETURN(stmt.value, expressions_.FilterChain());
    return Body("endfilter", stmt.body);
  }

  absl::Status With(Block& block) {
    Stmt& stmt = Add(block, Kind::kScope);
    while (!tokens_.Sees(Token::Kind::kBlockEnd)) {
      if (!stmt.targets.empty()) RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      ASSIGN_OR_RETURN(stmt.targets.emplace_back().name, tokens_.TakeName("a name to set"));
      RETURN_IF_ERROR(tokens_.ExpectOperator("="));
      ASSIGN_OR_RETURN(stmt.values.emplace_back(), expressions_.Expression());
    }
    return Body("endwith", stmt.body);
  }

  // What transformers marks the assistant's tokens with: it prints its body.
  absl::Status Generation(Block& block) {
    return Body("endgeneration", Add(block, Kind::kScope).body);
  }

  absl::Status Break(Block& block) { return LeaveLoop(block, Kind::kBreak); }
  absl::Status Continue(Block& block) { return LeaveLoop(block, Kind::kContinue); }
  absl::Status LeaveLoop(Block& block, Kind kind) {
    const Stmt& stmt = Add(block, kind);
    if (loops_ == 0) return ErrorAt(stmt.line, "break or continue outside of a loop");
    return EndTag();
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

absl::StatusOr<Block> Parse(absl::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("line 1: the template has ", source.size(),
                                                   " bytes; at most ", kMaxSourceBytes,
                                                   " are allowed"));
  }
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Template();
}

}  // namespace efedllm::jinja
