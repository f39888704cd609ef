// range, namespace, dict, raise_exception, strftime_now.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/jinja/builtins.h"

namespace efedllm::jinja {
namespace {

absl::StatusOr<Value> Range(Runtime& runtime, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"start", "stop", "step"}));
  ASSIGN_OR_RETURN(int64_t start, bound.Integer(0, 0));
  ASSIGN_OR_RETURN(int64_t stop, bound.Integer(1, 0));
  ASSIGN_OR_RETURN(const int64_t step, bound.Integer(2, 1));
  if (!bound.Has(1)) {
    stop = start;
    start = 0;
  }
  constexpr int64_t kMost = 100'000;  // jinja2's own sandbox has this limit
  constexpr int64_t kFar = int64_t{1} << 60;
  if (step == 0) return absl::InvalidArgumentError("range needs a step other than 0");
  if (start < -kFar || start > kFar || stop < -kFar || stop > kFar || step < -kFar || step > kFar) {
    return absl::InvalidArgumentError("range is out of bounds");
  }
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
    if (static_cast<int64_t>(items.size()) >= kMost) {
      return absl::InvalidArgumentError(absl::StrCat("range has more than ", kMost, " items"));
    }
    items.emplace_back(i);
  }
  return runtime.NewList(std::move(items));
}

absl::Status SetAll(Runtime& runtime, const Arguments& arguments, Dict& dict) {
  for (const Value& given : arguments.positional) {
    if (given.dict() == nullptr) return absl::InvalidArgumentError("dict needs a dict");
    for (const auto& [key, value] : given.dict()->entries) dict.Set(key, value, runtime);
  }
  for (const auto& [name, value] : arguments.named) {
    dict.Set(runtime.String(std::string(name)), value, runtime);
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> MakeNamespace(Runtime& runtime, const Arguments& arguments) {
  auto* made = runtime.New(Namespace{});
  RETURN_IF_ERROR(SetAll(runtime, arguments, made->attributes));
  return made;
}

absl::StatusOr<Value> MakeDict(Runtime& runtime, const Arguments& arguments) {
  Dict* dict = runtime.NewDict();
  RETURN_IF_ERROR(SetAll(runtime, arguments, *dict));
  return dict;
}

absl::StatusOr<Value> RaiseException(Runtime& runtime, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"message"}));
  return absl::InvalidArgumentError(
      absl::StrCat("the template says: ", Printable(ToText(bound[0], runtime).bytes(), 400)));
}

absl::StatusOr<Value> StrftimeNow(Runtime& runtime, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"format"}));
  ASSIGN_OR_RETURN(const MarkedText* format, StringOf(bound[0], "strftime_now"));
  if (format->size() > 200) return absl::InvalidArgumentError("strftime_now's format is too long");
  return runtime.String(absl::FormatTime(format->bytes(), runtime.now(), absl::UTCTimeZone()));
}

}  // namespace

Value FindFunction(absl::string_view name) {
  struct Entry {
    absl::string_view name;
    Function function;
  };
  constexpr Entry kFunctions[] = {
      {"range", Range},
      {"namespace", MakeNamespace},
      {"dict", MakeDict},
      {"raise_exception", RaiseException},
      {"strftime_now", StrftimeNow},
  };
  for (const Entry& entry : kFunctions) {
    if (entry.name == name) return entry.function;
  }
  return Value();
}

}  // namespace efedllm::jinja
