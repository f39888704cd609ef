// The interpreter's expressions.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/jinja/builtins.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/lexer.h"

namespace efedllm::jinja {
namespace {

using Kind = Expr::Kind;

// What an undefined value is called in a message.
std::string NameOf(const Expr& expr) {
  if (expr.kind == Kind::kName) return absl::StrCat("\"", Printable(expr.name, 40), "\"");
  if (expr.kind == Kind::kAttribute) {
    return absl::StrCat("the attribute \"", Printable(expr.name, 40), "\"");
  }
  if (expr.kind == Kind::kItem && expr.operands[1]->kind == Kind::kString) {
    return absl::StrCat("the item \"", Printable(expr.operands[1]->name, 40), "\"");
  }
  return "a value";
}

absl::Status CheckDefined(const Value& value, const Expr& expr) {
  if (!value.Is<Undefined>()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(NameOf(expr), " is undefined"));
}

}  // namespace

absl::StatusOr<Value> Interpreter::Evaluate(const Expr& expr, Scope& scope) {
  if (depth_ >= runtime_.max_depth()) {
    return ErrorAt(expr.line, absl::StrCat("the template's evaluation is nested deeper than ",
                                           runtime_.max_depth()));
  }
  ++depth_;
  runtime_.Charge(1);
  Result value = EvaluateOne(expr, scope);
  --depth_;
  if (!runtime_.ok()) return AtLine(expr.line, runtime_.status());
  if (!value.ok()) return AtLine(expr.line, value.status());
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateOne(const Expr& expr, Scope& scope) {
  switch (expr.kind) {
    case Kind::kLiteral:
      return Literal(expr);
    case Kind::kString:
      return runtime_.String(expr.name);
    case Kind::kName:
      return Name(expr, scope);
    case Kind::kList:
    case Kind::kTuple:
      return ListOf(expr, scope);
    case Kind::kDict:
      return DictOf(expr, scope);
    case Kind::kAttribute:
      return Attribute(expr, scope);
    case Kind::kItem:
      return Item(expr, scope);
    case Kind::kSlice:
      return Slice(expr, scope);
    case Kind::kCall:
      return Call(expr, scope, nullptr);
    case Kind::kFilter:
      return FilterOf(expr, scope, nullptr);
    case Kind::kTest:
      return TestOf(expr, scope);
    case Kind::kNot: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.operands[0], scope));
      return Value(!IsTrue(value));
    }
    case Kind::kMinus:
    case Kind::kPlus:
      return Signed(expr, scope);
    case Kind::kBinary:
      return Binary(expr, scope);
    case Kind::kAnd:
    case Kind::kOr:
      return Logic(expr, scope);
    case Kind::kConcat:
      return Concat(expr, scope);
    case Kind::kCompare:
      return Compare(expr, scope);
    case Kind::kConditional:
      return Conditional(expr, scope);
  }
  return absl::InternalError("an expression of no kind");
}

absl::StatusOr<Value> Interpreter::Literal(const Expr& expr) {
  if (const bool* value = std::get_if<bool>(&expr.literal)) return Value(*value);
  if (const int64_t* value = std::get_if<int64_t>(&expr.literal)) return Value(*value);
  if (const double* value = std::get_if<double>(&expr.literal)) return Value(*value);
  return Value(None());
}

absl::StatusOr<Value> Interpreter::Name(const Expr& expr, Scope& scope) {
  const Value* found = scope.Find(expr.name);
  return found == nullptr ? FindFunction(expr.name) : *found;
}

absl::StatusOr<Value> Interpreter::ListOf(const Expr& expr, Scope& scope) {
  std::vector<Value> items;
  for (const ExprPtr& operand : expr.operands) {
    ASSIGN_OR_RETURN(items.emplace_back(), Evaluate(*operand, scope));
  }
  return runtime_.NewList(std::move(items), expr.kind == Kind::kTuple);
}

absl::StatusOr<Value> Interpreter::DictOf(const Expr& expr, Scope& scope) {
  Dict* dict = runtime_.NewDict();
  for (size_t i = 0; i < expr.operands.size(); i += 2) {
    ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.operands[i], scope));
    ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.operands[i + 1], scope));
    dict->Set(key, value, runtime_);
  }
  return dict;
}

absl::StatusOr<Value> Interpreter::Attribute(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.operands[0], scope));
  RETURN_IF_ERROR(CheckDefined(object, *expr.operands[0]));
  return AttributeOf(object, expr.name, runtime_);
}

absl::StatusOr<Value> Interpreter::Item(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.operands[0], scope));
  RETURN_IF_ERROR(CheckDefined(object, *expr.operands[0]));
  ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.operands[1], scope));
  return ItemOf(object, key, runtime_);
}

absl::StatusOr<Value> Interpreter::Slice(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(const Value object, Evaluate(*expr.operands[0], scope));
  RETURN_IF_ERROR(CheckDefined(object, *expr.operands[0]));
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expr.operands[i + 1] == nullptr) continue;
    ASSIGN_OR_RETURN(bounds[i], Evaluate(*expr.operands[i + 1], scope));
  }
  return SliceOf(object, bounds[0], bounds[1], bounds[2], runtime_);
}

absl::StatusOr<Arguments> Interpreter::ArgumentsOf(const Expr& expr, Scope& scope) {
  Arguments arguments;
  for (size_t i = 1; i < expr.operands.size(); ++i) {
    ASSIGN_OR_RETURN(arguments.positional.emplace_back(), Evaluate(*expr.operands[i], scope));
  }
  for (const auto& [name, value] : expr.named) {
    ASSIGN_OR_RETURN(Value evaluated, Evaluate(*value, scope));
    arguments.named.emplace_back(name, evaluated);
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::Call(const Expr& expr, Scope& scope, const Macro* caller) {
  ASSIGN_OR_RETURN(const Value callee, Evaluate(*expr.operands[0], scope));
  if (callee.Is<Undefined>()) {
    return absl::InvalidArgumentError(
        absl::StrCat(NameOf(*expr.operands[0]), " can't be called: there is no such function"));
  }
  ASSIGN_OR_RETURN(const Arguments arguments, ArgumentsOf(expr, scope));
  if (callee.Is<const Macro*>()) return CallMacro(*callee.As<const Macro*>(), arguments, caller);
  if (callee.Is<const Method*>()) {
    return CallMethod(*callee.As<const Method*>(), arguments, runtime_);
  }
  if (callee.Is<Function>()) return callee.As<Function>()(runtime_, arguments);
  return absl::InvalidArgumentError(
      absl::StrCat("a value of type ", callee.kind_name(), " can't be called"));
}

absl::StatusOr<Value> Interpreter::CallMacro(const Macro& macro, const Arguments& arguments,
                                             const Macro* caller) {
  const auto fail = [&macro](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat("the macro ", macro.name, " ", why));
  };
  const std::vector<Parameter>& parameters = *macro.parameters;
  if (arguments.positional.size() > parameters.size()) return fail("has too many arguments");
  Scope& scope = NewScope(macro.scope);
  if (caller != nullptr) scope.Set("caller", caller);
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    scope.Set(parameters[i].name, arguments.positional[i]);
  }
  for (const auto& [name, value] : arguments.named) {
    bool is_known = false;
    for (const Parameter& parameter : parameters) is_known |= parameter.name == name;
    if (!is_known) return fail(absl::StrCat("has no parameter \"", name, "\""));
    scope.Set(name, value);
  }
  for (size_t i = arguments.positional.size(); i < parameters.size(); ++i) {
    bool is_given = false;
    for (const auto& [name, value] : arguments.named) is_given |= name == parameters[i].name;
    if (is_given) continue;
    Value value;
    if (parameters[i].otherwise != nullptr) {
      ASSIGN_OR_RETURN(value, Evaluate(*parameters[i].otherwise, scope));
    }
    scope.Set(parameters[i].name, value);
  }
  return Captured(*macro.body, scope);
}

// input: what {% filter %} and {% set %} put in where a chain of filters begins with nothing.
absl::StatusOr<Value> Interpreter::FilterOf(const Expr& expr, Scope& scope, const Value* input) {
  const Expr* inner = expr.operands[0].get();
  Value self;
  if (inner == nullptr) {
    if (input == nullptr) return absl::InternalError("a filter of nothing");
    self = *input;
  } else if (input != nullptr && inner->kind == Kind::kFilter) {
    ASSIGN_OR_RETURN(self, FilterOf(*inner, scope, input));
  } else {
    ASSIGN_OR_RETURN(self, Evaluate(*inner, scope));
  }
  ASSIGN_OR_RETURN(const Arguments arguments, ArgumentsOf(expr, scope));
  return CallFilter(expr.name, self, arguments, runtime_);
}

absl::StatusOr<Value> Interpreter::TestOf(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(const Value self, Evaluate(*expr.operands[0], scope));
  ASSIGN_OR_RETURN(const Arguments arguments, ArgumentsOf(expr, scope));
  ASSIGN_OR_RETURN(const bool holds, CallTest(expr.name, self, arguments, runtime_));
  return Value(holds);
}

absl::StatusOr<Value> Interpreter::Signed(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.operands[0], scope));
  RETURN_IF_ERROR(CheckDefined(value, *expr.operands[0]));
  if (expr.kind == Kind::kMinus) return Arithmetic("-", int64_t{0}, value, runtime_);
  return Arithmetic("+", int64_t{0}, value, runtime_);
}

absl::StatusOr<Value> Interpreter::Binary(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(const Value a, Evaluate(*expr.operands[0], scope));
  ASSIGN_OR_RETURN(const Value b, Evaluate(*expr.operands[1], scope));
  RETURN_IF_ERROR(CheckDefined(a, *expr.operands[0]));
  RETURN_IF_ERROR(CheckDefined(b, *expr.operands[1]));
  return Arithmetic(expr.name, a, b, runtime_);
}

// Python's: the value that decides, not a bool.
absl::StatusOr<Value> Interpreter::Logic(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(const Value first, Evaluate(*expr.operands[0], scope));
  if (IsTrue(first) == (expr.kind == Kind::kOr)) return first;
  return Evaluate(*expr.operands[1], scope);
}

absl::StatusOr<Value> Interpreter::Concat(const Expr& expr, Scope& scope) {
  MarkedText text;
  for (const ExprPtr& operand : expr.operands) {
    ASSIGN_OR_RETURN(const Value value, Evaluate(*operand, scope));
    text.Append(ToText(value, runtime_));
  }
  return runtime_.String(std::move(text));
}

absl::StatusOr<Value> Interpreter::Compare(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*expr.operands[0], scope));
  for (size_t i = 0; i < expr.comparisons.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Evaluate(*expr.operands[i + 1], scope));
    ASSIGN_OR_RETURN(const bool holds, CompareOnce(expr.comparisons[i], left, right, runtime_));
    if (!holds) return Value(false);
    left = right;
  }
  return Value(true);
}

absl::StatusOr<Value> Interpreter::Conditional(const Expr& expr, Scope& scope) {
  ASSIGN_OR_RETURN(const Value condition, Evaluate(*expr.operands[1], scope));
  if (IsTrue(condition)) return Evaluate(*expr.operands[0], scope);
  if (expr.operands[2] == nullptr) return Value();
  return Evaluate(*expr.operands[2], scope);
}

}  // namespace efedllm::jinja
