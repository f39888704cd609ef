// CallTest: what may stand behind "is".
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/jinja/builtins.h"
#include "text/jinja/marked_string_ops.h"

namespace efedllm::jinja {
namespace {

// Tests without arguments.
struct Plain {
  absl::string_view name;
  bool (*test)(const Value& value);
};

bool IsSequence(const Value& v) {
  return v.IsString() || v.list() != nullptr || v.dict() != nullptr;
}
bool IsCallable(const Value& v) {
  return v.Is<Function>() || v.Is<const Macro*>() || v.Is<const Method*>();
}
bool IsFloat(const Value& v) { return v.Is<double>(); }
bool IsInteger(const Value& v) { return v.Is<int64_t>(); }
bool IsOdd(const Value& v) { return v.integer().has_value() && *v.integer() % 2 != 0; }
bool IsEven(const Value& v) { return v.integer().has_value() && *v.integer() % 2 == 0; }

constexpr Plain kPlain[] = {
    {"defined", [](const Value& v) { return !v.Is<Undefined>(); }},
    {"undefined", [](const Value& v) { return v.Is<Undefined>(); }},
    {"none", [](const Value& v) { return v.Is<None>(); }},
    {"string", [](const Value& v) { return v.IsString(); }},
    {"mapping", [](const Value& v) { return v.dict() != nullptr; }},
    {"iterable", [](const Value& v) { return IsSequence(v) || v.Is<Undefined>(); }},
    {"sequence", [](const Value& v) { return IsSequence(v) || v.Is<Undefined>(); }},
    {"number", [](const Value& v) { return v.number().has_value(); }},
    {"boolean", [](const Value& v) { return v.Is<bool>(); }},
    {"true", [](const Value& v) { return v.Is<bool>() && v.As<bool>(); }},
    {"false", [](const Value& v) { return v.Is<bool>() && !v.As<bool>(); }},
    {"integer", IsInteger},
    {"float", IsFloat},
    {"callable", IsCallable},
    {"odd", IsOdd},
    {"even", IsEven},
};

absl::StatusOr<bool> DivisibleBy(const Value& self, const Value& by, Runtime& /*runtime*/) {
  if (!self.integer().has_value() || !by.integer().has_value() || *by.integer() == 0) {
    return absl::InvalidArgumentError("divisibleby needs integers, and not 0");
  }
  return *by.integer() == -1 || *self.integer() % *by.integer() == 0;
}

absl::StatusOr<bool> IsEqual(const Value& self, const Value& other, Runtime& runtime) {
  return Equals(self, other, runtime);
}
absl::StatusOr<bool> IsUnequal(const Value& self, const Value& other, Runtime& runtime) {
  return !Equals(self, other, runtime);
}
absl::StatusOr<bool> IsIn(const Value& self, const Value& container, Runtime& runtime) {
  return Contains(container, self, runtime);
}
absl::StatusOr<bool> IsLess(const Value& self, const Value& other, Runtime& runtime) {
  const std::optional<bool> less = Less(self, other, runtime);
  if (less.has_value()) return *less;
  return absl::InvalidArgumentError(
      absl::StrCat(self.kind_name(), " and ", other.kind_name(), " have no order"));
}
absl::StatusOr<bool> IsGreater(const Value& self, const Value& other, Runtime& runtime) {
  return IsLess(other, self, runtime);
}
absl::StatusOr<bool> IsAtMost(const Value& self, const Value& other, Runtime& runtime) {
  ASSIGN_OR_RETURN(const bool greater, IsLess(other, self, runtime));
  return !greater;
}
absl::StatusOr<bool> IsAtLeast(const Value& self, const Value& other, Runtime& runtime) {
  ASSIGN_OR_RETURN(const bool less, IsLess(self, other, runtime));
  return !less;
}
absl::StatusOr<bool> IsSame(const Value& self, const Value& other, Runtime& runtime) {
  const bool same_kind = self.data().index() == other.data().index();
  return same_kind && Equals(self, other, runtime);
}

// Tests with one argument.
struct Binary {
  absl::string_view name;
  absl::StatusOr<bool> (*test)(const Value& self, const Value& other, Runtime& runtime);
};
constexpr Binary kBinary[] = {
    {"equalto", IsEqual},
    {"eq", IsEqual},
    {"==", IsEqual},
    {"ne", IsUnequal},
    {"!=", IsUnequal},
    {"in", IsIn},
    {"lt", IsLess},
    {"lessthan", IsLess},
    {"<", IsLess},
    {"gt", IsGreater},
    {"greaterthan", IsGreater},
    {">", IsGreater},
    {"le", IsAtMost},
    {"<=", IsAtMost},
    {"ge", IsAtLeast},
    {">=", IsAtLeast},
    {"sameas", IsSame},
    {"divisibleby", DivisibleBy},
};

absl::StatusOr<bool> IsOfCase(const Value& self, bool upper) {
  if (!self.IsString()) return false;
  const std::string& mine = self.text().bytes();
  const std::string small = Lower(self.text()).bytes();
  const std::string capital = Upper(self.text()).bytes();
  return mine == (upper ? capital : small) && small != capital;
}

}  // namespace

absl::StatusOr<bool> CallTest(absl::string_view name, const Value& self, const Arguments& arguments,
                              Runtime& runtime) {
  const size_t given = arguments.positional.size();
  if (self.IsString()) runtime.ChargeBytes(self.text().size());
  if (!arguments.named.empty() || given > 1) {
    return absl::InvalidArgumentError(absl::StrCat("the test ", name, " has too many arguments"));
  }
  for (const Plain& plain : kPlain) {
    if (plain.name == name && given == 0) return plain.test(self);
  }
  for (const Binary& binary : kBinary) {
    if (binary.name == name && given == 1) {
      return binary.test(self, arguments.positional[0], runtime);
    }
  }
  if ((name == "upper" || name == "lower") && given == 0) return IsOfCase(self, name == "upper");
  return absl::InvalidArgumentError(absl::StrCat("the test \"is ", Printable(name, 40), "\" with ",
                                                 given, " arguments is not supported"));
}

}  // namespace efedllm::jinja
