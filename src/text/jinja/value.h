// What a template's expressions yield. All that is larger than a number lies in the runtime of one
// rendering and goes with it, so that lists that hold themselves neither leak nor recurse.
#ifndef EFEDLLM_TEXT_JINJA_VALUE_H_
#define EFEDLLM_TEXT_JINJA_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/jinja/marked_text.h"

namespace efedllm::jinja {

class Runtime;
struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Method;
struct Macro;
struct Arguments;
class Value;

struct Undefined {};
struct None {};
using Function = absl::StatusOr<Value> (*)(Runtime& runtime, const Arguments& arguments);

template <typename T, typename Variant>
inline constexpr bool kIsOneOf = false;
template <typename T, typename... Kinds>
inline constexpr bool kIsOneOf<T, std::variant<Kinds...>> = (std::is_same_v<T, Kinds> || ...);

class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, const MarkedText*, List*, Dict*,
                            Namespace*, const Loop*, const Method*, const Macro*, Function>;
  Value() = default;  // undefined
  // Of exactly one of the kinds in Data, so that no char* becomes a bool.
  template <typename T>
  // NOLINTNEXTLINE(google-explicit-constructor): every kind is a value.
  requires kIsOneOf<T, Data> Value(T data) : data_(data) {}

  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(data_);
  }
  template <typename T>
  T As() const {
    return std::get<T>(data_);
  }
  bool IsString() const { return Is<const MarkedText*>(); }
  const MarkedText& text() const { return *As<const MarkedText*>(); }
  absl::string_view bytes() const { return text().bytes(); }
  List* list() const { return Is<List*>() ? As<List*>() : nullptr; }
  Dict* dict() const { return Is<Dict*>() ? As<Dict*>() : nullptr; }
  // An integer; True and False are 1 and 0 as in Python.
  std::optional<int64_t> integer() const;
  // An integer or a float.
  std::optional<double> number() const;
  const char* kind_name() const;  // as Python's type(x).__name__

  const Data& data() const { return data_; }

 private:
  Data data_;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
};

// Small: a look-up walks through it, and is charged for that.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in order of insertion

  const Value* Find(absl::string_view key) const;
  const Value* Find(const Value& key, Runtime& runtime) const;
  void Set(const Value& key, const Value& value, Runtime& runtime);
};

struct Namespace {
  Dict attributes;
};

// `loop` in the body of a for.
struct Loop {
  size_t index0 = 0;
  const std::vector<Value>* items = nullptr;
};

// A method that is not called yet: "content.split".
struct Method {
  Value self;
  absl::string_view name;  // a literal's
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<absl::string_view, Value>> named;  // names are the template's
};

bool IsTrue(const Value& value);
// Python's ==, <. False where the runtime's budget is used up. Less: nullopt if there is no order.
bool Equals(const Value& a, const Value& b, Runtime& runtime, int depth = 0);
std::optional<bool> Less(const Value& a, const Value& b, Runtime& runtime, int depth = 0);

// str(x) and repr(x), with the marks of the strings inside. Undefined is "".
MarkedText ToText(const Value& value, Runtime& runtime);
void AppendRepr(const Value& value, Runtime& runtime, MarkedText& out, int depth = 0);
std::string FormatFloat(double value);  // as Python's repr

// json.dumps(x, ensure_ascii=False) as transformers calls it. indent < 0: on one line.
struct JsonStyle {
  int64_t indent = -1;
  bool sorts_keys = false;
  bool is_ascii = false;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
absl::StatusOr<MarkedText> ToJson(const Value& value, const JsonStyle& style, Runtime& runtime);

// The items that a for sees: of a list, a dict's keys, a string's characters; none of an undefined.
absl::StatusOr<std::vector<Value>> ItemsOf(const Value& value, Runtime& runtime);
// len(x); nullopt: it has none.
std::optional<int64_t> LengthOf(const Value& value);

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_VALUE_H_
