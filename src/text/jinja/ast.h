// A parsed template. Immutable; no node is deeper than kMaxDepth, so walks may recurse.
#ifndef EFEDLLM_TEXT_JINJA_AST_H_
#define EFEDLLM_TEXT_JINJA_AST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace efedllm::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind {
    kLiteral,    // literal
    kString,     // name is the text
    kName,       // name
    kList,       // operands
    kTuple,      // operands
    kDict,       // operands: key, value, key, value ...
    kAttribute,  // operands[0].name
    kItem,       // operands[0][operands[1]]
    kSlice,      // operands[0][1:2:3]; null where nothing stands
    kCall,       // operands[0](the others, named)
    kFilter,     // operands[0] | name(the others, named)
    kTest,       // operands[0] is name(the others, named)
    kNot,        // operands[0]
    kMinus,      // -operands[0]
    kPlus,       // +operands[0]
    kBinary,     // operands[0] name operands[1]; name: + - * / // % **
    kAnd,        // operands[0] and operands[1]
    kOr,
    kConcat,       // operands, as text
    kCompare,      // operands[0] comparisons[0] operands[1] comparisons[1] ...
    kConditional,  // operands[0] if operands[1] else operands[2], which may be null
  };

  Kind kind;
  int line;
  int depth = 1;  // of the tree below, itself included
  std::string name;
  std::variant<std::monostate, bool, int64_t, double> literal;  // monostate: none
  std::vector<ExprPtr> operands;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> comparisons;  // == != < <= > >= in "not in"
};

struct Stmt;
using Block = std::vector<Stmt>;

// What a for or set writes to: a name, or a namespace's attribute.
struct Target {
  std::string name;
  std::string attribute;  // "": none
};

struct Branch {
  ExprPtr condition;  // null: else
  Block body;
};

struct Parameter {
  std::string name;
  ExprPtr otherwise;  // null: undefined
};

struct Stmt {
  enum class Kind {
    kText,      // text
    kPrint,     // value
    kIf,        // branches
    kFor,       // targets in value if condition: body, otherwise
    kSet,       // targets = value
    kSetBlock,  // targets = the text of body, through the filters of value (null: none)
    kMacro,     // text(parameters): body
    kCall,      // value, a call, with body as caller(parameters)
    kFilter,    // the text of body through the filters of value
    kScope,     // body in a scope of its own, in which targets are the values; {% generation %}
    kBreak,
    kContinue,
  };

  Kind kind;
  int line;
  std::string text;
  std::vector<Target> targets;
  bool unpacks = false;  // the targets share one value's items
  ExprPtr value;
  std::vector<ExprPtr> values;  // kScope: one for each target
  ExprPtr condition;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  Block body;
  Block otherwise;
};

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_AST_H_
