// Walks a template's tree.
#ifndef EFEDLLM_TEXT_JINJA_INTERPRETER_H_
#define EFEDLLM_TEXT_JINJA_INTERPRETER_H_

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace efedllm::jinja {

// The names that a piece of the template sees: its own, then those around it.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<absl::string_view, Value>> names;

  const Value* Find(absl::string_view name) const;
  void Set(absl::string_view name, const Value& value);
};

// {% macro %}, or the body of a {% call %}. Its free names are those of where it stands.
struct Macro {
  absl::string_view name;
  const std::vector<Parameter>* parameters;
  const Block* body;
  Scope* scope;
};

// One rendering. The tree and the runtime outlive it.
class Interpreter {
 public:
  explicit Interpreter(Runtime& runtime) : runtime_(runtime) {}

  enum class Flow { kNext, kBreak, kContinue };
  // Runs the block; what it prints goes to out.
  absl::StatusOr<Flow> Run(const Block& block, Scope& scope, MarkedText& out);
  Scope& NewScope(Scope* parent);

 private:
  using Exit = absl::StatusOr<Flow>;
  using Result = absl::StatusOr<Value>;

  // Statements.
  Exit RunOne(const Stmt& stmt, Scope& scope, MarkedText& out);
  Exit RunIf(const Stmt& stmt, Scope& scope, MarkedText& out);
  Exit RunFor(const Stmt& stmt, Scope& scope, MarkedText& out);
  absl::StatusOr<std::vector<Value>> LoopItems(const Stmt& stmt, Scope& scope);
  absl::Status RunSetBlock(const Stmt& stmt, Scope& scope);
  absl::Status RunFilter(const Stmt& stmt, Scope& scope, MarkedText& out);
  absl::Status RunCall(const Stmt& stmt, Scope& scope, MarkedText& out);
  absl::Status Print(const Value& value, MarkedText& out);
  absl::Status Assign(const Stmt& stmt, const Value& value, Scope& scope);
  absl::Status AssignOne(const Target& target, const Value& value, Scope& scope);
  Result Captured(const Block& block, Scope& scope);
  const Macro* NewMacro(const Stmt& stmt, Scope& scope);

  // Expressions.
  Result Evaluate(const Expr& expr, Scope& scope);
  Result EvaluateOne(const Expr& expr, Scope& scope);
  Result Literal(const Expr& expr);
  Result Name(const Expr& expr, Scope& scope);
  Result ListOf(const Expr& expr, Scope& scope);
  Result DictOf(const Expr& expr, Scope& scope);
  Result Attribute(const Expr& expr, Scope& scope);
  Result Item(const Expr& expr, Scope& scope);
  Result Slice(const Expr& expr, Scope& scope);
  Result Call(const Expr& expr, Scope& scope, const Macro* caller);
  Result CallMacro(const Macro& macro, const Arguments& arguments, const Macro* caller);
  Result FilterOf(const Expr& expr, Scope& scope, const Value* input);
  Result TestOf(const Expr& expr, Scope& scope);
  Result Signed(const Expr& expr, Scope& scope);
  Result Binary(const Expr& expr, Scope& scope);
  Result Logic(const Expr& expr, Scope& scope);
  Result Concat(const Expr& expr, Scope& scope);
  Result Compare(const Expr& expr, Scope& scope);
  Result Conditional(const Expr& expr, Scope& scope);
  absl::StatusOr<Arguments> ArgumentsOf(const Expr& expr, Scope& scope);

  Runtime& runtime_;
  int depth_ = 0;
  std::deque<Scope> scopes_;
  std::deque<Macro> macros_;
};

// a + b and its like: + - * / // % **. The operators' InvalidArgument names the kinds.
absl::StatusOr<Value> Arithmetic(absl::string_view op, const Value& a, const Value& b,
                                 Runtime& runtime);
// a op b for == != < <= > >= in "not in".
absl::StatusOr<bool> CompareOnce(absl::string_view op, const Value& a, const Value& b,
                                 Runtime& runtime);
// object[start:stop:step] of a list or string; undefined bounds stand for none.
absl::StatusOr<Value> SliceOf(const Value& object, const Value& start, const Value& stop,
                              const Value& step, Runtime& runtime);

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_INTERPRETER_H_
