// The interpreter's statements.
#include "text/jinja/interpreter.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/jinja/builtins.h"
#include "text/jinja/lexer.h"
#include "text/jinja/parser.h"
#include "text/jinja/template.h"

namespace efedllm::jinja {

using Kind = Stmt::Kind;

const Value* Scope::Find(absl::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent) {
    for (const auto& [known, value] : scope->names) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

void Scope::Set(absl::string_view name, const Value& value) {
  for (auto& [known, old] : names) {
    if (known != name) continue;
    old = value;
    return;
  }
  names.emplace_back(name, value);
}

Scope& Interpreter::NewScope(Scope* parent) {
  runtime_.Reserve(sizeof(Scope) + 4 * sizeof(Value));
  return scopes_.emplace_back(Scope{parent, {}});
}

const Macro* Interpreter::NewMacro(const Stmt& stmt, Scope& scope) {
  runtime_.Reserve(sizeof(Macro));
  const absl::string_view name =
      stmt.kind == Kind::kMacro ? absl::string_view(stmt.text) : "caller";
  return &macros_.emplace_back(Macro{name, &stmt.parameters, &stmt.body, &scope});
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const Block& block, Scope& scope,
                                                   MarkedText& out) {
  for (const Stmt& stmt : block) {
    if (depth_ >= runtime_.max_depth()) {
      return ErrorAt(stmt.line, absl::StrCat("the template's evaluation is nested deeper than ",
                                             runtime_.max_depth()));
    }
    ++depth_;
    runtime_.Charge(1);
    const Exit exit = RunOne(stmt, scope, out);
    --depth_;
    if (!runtime_.ok()) return AtLine(stmt.line, runtime_.status());
    if (!exit.ok()) return AtLine(stmt.line, exit.status());
    if (*exit != Flow::kNext) return *exit;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunOne(const Stmt& stmt, Scope& scope,
                                                      MarkedText& out) {
  absl::Status status;
  switch (stmt.kind) {
    case Kind::kText:
      runtime_.Reserve(stmt.text.size());
      out.Append(stmt.text, Origin::kTemplate);
      break;
    case Kind::kPrint: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*stmt.value, scope));
      status = Print(value, out);
      break;
    }
    case Kind::kIf:
      return RunIf(stmt, scope, out);
    case Kind::kFor:
      return RunFor(stmt, scope, out);
    case Kind::kSet: {
      ASSIGN_OR_RETURN(const Value value, Evaluate(*stmt.value, scope));
      status = Assign(stmt, value, scope);
      break;
    }
    case Kind::kSetBlock:
      status = RunSetBlock(stmt, scope);
      break;
    case Kind::kMacro:
      scope.Set(stmt.text, NewMacro(stmt, scope));
      break;
    case Kind::kCall:
      status = RunCall(stmt, scope, out);
      break;
    case Kind::kFilter:
      status = RunFilter(stmt, scope, out);
      break;
    case Kind::kScope: {
      Scope& inner = NewScope(&scope);
      for (size_t i = 0; i < stmt.targets.size(); ++i) {
        ASSIGN_OR_RETURN(const Value value, Evaluate(*stmt.values[i], scope));
        inner.Set(stmt.targets[i].name, value);
      }
      return Run(stmt.body, inner, out);
    }
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  if (!status.ok()) return status;
  return Flow::kNext;
}

absl::Status Interpreter::Print(const Value& value, MarkedText& out) {
  if (value.IsString()) {
    if (runtime_.Reserve(value.text().size())) out.Append(value.text());
    return runtime_.status();
  }
  out.Append(ToText(value, runtime_));
  return runtime_.status();
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunIf(const Stmt& stmt, Scope& scope,
                                                     MarkedText& out) {
  for (const Branch& branch : stmt.branches) {
    if (branch.condition != nullptr) {
      ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition, scope));
      if (!IsTrue(condition)) continue;
    }
    return Run(branch.body, scope, out);
  }
  return Flow::kNext;
}

absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(const Stmt& stmt, Scope& scope) {
  ASSIGN_OR_RETURN(const Value sequence, Evaluate(*stmt.value, scope));
  ASSIGN_OR_RETURN(std::vector<Value> items, ItemsOf(sequence, runtime_));
  if (stmt.condition == nullptr) return items;
  std::vector<Value> kept;
  for (const Value& item : items) {
    Scope& inner = NewScope(&scope);
    RETURN_IF_ERROR(Assign(stmt, item, inner));
    ASSIGN_OR_RETURN(const Value condition, Evaluate(*stmt.condition, inner));
    if (IsTrue(condition)) kept.push_back(item);
  }
  return kept;
}

absl::StatusOr<Interpreter::Flow> Interpreter::RunFor(const Stmt& stmt, Scope& scope,
                                                      MarkedText& out) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, LoopItems(stmt, scope));
  if (items.empty()) return Run(stmt.otherwise, NewScope(&scope), out);
  // Macros and lists may keep what a turn of the loop makes, so its items live on as well.
  const List* kept = runtime_.NewList(items).list();
  Exit exit = Flow::kNext;
  for (size_t i = 0; i < items.size(); ++i) {
    Scope& inner = NewScope(&scope);
    inner.Set("loop", static_cast<const Loop*>(runtime_.New(Loop{i, &kept->items})));
    const absl::Status assigned = Assign(stmt, items[i], inner);
    exit = assigned.ok() ? Run(stmt.body, inner, out) : Exit(assigned);
    if (!exit.ok() || *exit == Flow::kBreak) break;
  }
  if (!exit.ok()) return exit;
  return Flow::kNext;
}

absl::StatusOr<Value> Interpreter::Captured(const Block& block, Scope& scope) {
  MarkedText text;
  RETURN_IF_ERROR(Run(block, scope, text).status());
  return runtime_.String(std::move(text));
}

absl::Status Interpreter::RunSetBlock(const Stmt& stmt, Scope& scope) {
  ASSIGN_OR_RETURN(Value text, Captured(stmt.body, NewScope(&scope)));
  if (stmt.value != nullptr) {
    ASSIGN_OR_RETURN(text, FilterOf(*stmt.value, scope, &text));
  }
  return Assign(stmt, text, scope);
}

absl::Status Interpreter::RunFilter(const Stmt& stmt, Scope& scope, MarkedText& out) {
  ASSIGN_OR_RETURN(const Value text, Captured(stmt.body, NewScope(&scope)));
  ASSIGN_OR_RETURN(const Value filtered, FilterOf(*stmt.value, scope, &text));
  return Print(filtered, out);
}

absl::Status Interpreter::RunCall(const Stmt& stmt, Scope& scope, MarkedText& out) {
  ASSIGN_OR_RETURN(const Value text, Call(*stmt.value, scope, NewMacro(stmt, scope)));
  return Print(text, out);
}

absl::Status Interpreter::Assign(const Stmt& stmt, const Value& value, Scope& scope) {
  if (stmt.targets.size() == 1 && !stmt.unpacks) return AssignOne(stmt.targets[0], value, scope);
  ASSIGN_OR_RETURN(const std::vector<Value> items, ItemsOf(value, runtime_));
  if (items.size() != stmt.targets.size()) {
    return absl::InvalidArgumentError(absl::StrCat(items.size(), " values can't be unpacked into ",
                                                   stmt.targets.size(), " names"));
  }
  for (size_t i = 0; i < items.size(); ++i) {
    RETURN_IF_ERROR(AssignOne(stmt.targets[i], items[i], scope));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::AssignOne(const Target& target, const Value& value, Scope& scope) {
  if (target.attribute.empty()) {
    scope.Set(target.name, value);
    return absl::OkStatus();
  }
  const Value* object = scope.Find(target.name);
  if (object == nullptr || !object->Is<Namespace*>()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", Printable(target.name, 40), "\" is no namespace, so ",
                     Printable(target.attribute, 40), " can't be set in it"));
  }
  Dict& attributes = object->As<Namespace*>()->attributes;
  attributes.Set(runtime_.String(target.attribute), value, runtime_);
  return absl::OkStatus();
}

absl::StatusOr<Template> Template::Parse(absl::string_view source) {
  ASSIGN_OR_RETURN(Block block, jinja::Parse(source));
  return Template(std::move(block));
}

absl::StatusOr<MarkedText> Template::Render(const Variables& variables, Runtime& runtime) const {
  Interpreter interpreter(runtime);
  Scope& outer = interpreter.NewScope(nullptr);
  for (const auto& [name, value] : variables) outer.Set(name, value);
  MarkedText out;
  RETURN_IF_ERROR(interpreter.Run(*block_, interpreter.NewScope(&outer), out).status());
  return out;
}

}  // namespace efedllm::jinja
