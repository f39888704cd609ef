// The filters, tests, methods and functions that chat templates call.
#ifndef EFEDLLM_TEXT_JINJA_BUILTINS_H_
#define EFEDLLM_TEXT_JINJA_BUILTINS_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace efedllm::jinja {

// self | name(arguments). InvalidArgument: no such filter, or it can't do that.
absl::StatusOr<Value> CallFilter(absl::string_view name, const Value& self,
                                 const Arguments& arguments, Runtime& runtime);
// self is name(arguments).
absl::StatusOr<bool> CallTest(absl::string_view name, const Value& self, const Arguments& arguments,
                              Runtime& runtime);
// self.name as a value to call; undefined if that kind has no such method.
Value FindMethod(const Value& self, absl::string_view name, Runtime& runtime);
absl::StatusOr<Value> CallMethod(const Method& method, const Arguments& arguments,
                                 Runtime& runtime);
// range, namespace, dict, raise_exception, strftime_now; undefined for another name.
Value FindFunction(absl::string_view name);

// object.name and object[key] as Jinja looks them up; undefined if there is no such thing.
Value AttributeOf(const Value& object, absl::string_view name, Runtime& runtime);
Value ItemOf(const Value& object, const Value& key, Runtime& runtime);
// The text of a string; InvalidArgument, naming `what`, for another kind.
absl::StatusOr<const MarkedText*> StringOf(const Value& value, absl::string_view what);

// a in b
absl::StatusOr<bool> Contains(const Value& container, const Value& item, Runtime& runtime);
// format % arguments
absl::StatusOr<MarkedText> FormatPercent(const MarkedText& format,
                                         absl::Span<const Value> arguments, Runtime& runtime);

// The arguments of one call by the parameters' names.
class BoundArguments {
 public:
  // InvalidArgument: too many, an unknown name, or one given twice.
  static absl::StatusOr<BoundArguments> Bind(const Arguments& arguments,
                                             std::initializer_list<absl::string_view> names);
  bool Has(size_t i) const { return values_[i].has_value(); }
  // What was given; else undefined.
  Value operator[](size_t i) const { return values_[i].value_or(Value()); }
  bool Bool(size_t i, bool otherwise) const { return Has(i) ? IsTrue(*values_[i]) : otherwise; }
  // InvalidArgument: given, but of another kind. None counts as not given.
  absl::StatusOr<int64_t> Integer(size_t i, int64_t otherwise) const;
  absl::StatusOr<const MarkedText*> Text(size_t i, const MarkedText* otherwise) const;

 private:
  std::vector<std::optional<Value>> values_;
  std::vector<absl::string_view> names_;
};

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_BUILTINS_H_
