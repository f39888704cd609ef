// What filters, tests, methods and the interpreter share.
#include "text/jinja/builtins.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace efedllm::jinja {
namespace {

Value AttributeOfLoop(const Loop& loop, absl::string_view name) {
  const auto count = static_cast<int64_t>(loop.items->size());
  const auto index0 = static_cast<int64_t>(loop.index0);
  if (name == "index") return index0 + 1;
  if (name == "index0") return index0;
  if (name == "revindex") return count - index0;
  if (name == "revindex0") return count - index0 - 1;
  if (name == "first") return index0 == 0;
  if (name == "last") return index0 + 1 == count;
  if (name == "length") return count;
  if (name == "depth") return int64_t{1};  // only recursive loops, which we don't have, go deeper
  if (name == "depth0") return int64_t{0};
  if (name == "previtem" && index0 > 0) return (*loop.items)[loop.index0 - 1];
  if (name == "nextitem" && index0 + 1 < count) return (*loop.items)[loop.index0 + 1];
  return Value();
}

// %5.2d: what stands between the % and the letter.
struct Conversion {
  bool left = false;
  bool zeros = false;
  bool plus = false;
  int width = 0;
  int precision = -1;
};

constexpr int kMaxWidth = 1000;

Conversion ReadConversion(absl::string_view& format) {
  Conversion conversion;
  const auto number = [&format](int& value) {
    while (!format.empty() && absl::ascii_isdigit(static_cast<unsigned char>(format[0]))) {
      value = std::min(value * 10 + (format[0] - '0'), kMaxWidth);
      format.remove_prefix(1);
    }
  };
  for (; !format.empty() && absl::StrContains("-0+ #", format.substr(0, 1));
       format.remove_prefix(1)) {
    conversion.left |= format[0] == '-';
    conversion.zeros |= format[0] == '0';
    conversion.plus |= format[0] == '+';
  }
  number(conversion.width);
  if (!format.empty() && format[0] == '.') {
    format.remove_prefix(1);
    conversion.precision = 0;
    number(conversion.precision);
  }
  return conversion;
}

absl::StatusOr<MarkedText> Convert(const Conversion& conversion, char letter, const Value& value,
                                   Runtime& runtime) {
  if (letter == 's') {
    const MarkedText text = ToText(value, runtime);
    if (conversion.precision < 0) return text;
    return text.Substr(0, ByteOfCharacter(text.bytes(), static_cast<size_t>(conversion.precision)));
  }
  if (letter == 'r') {
    MarkedText text;
    AppendRepr(value, runtime, text);
    return text;
  }
  const std::optional<double> number = value.number();
  if (!number.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("%", std::string(1, letter), " needs a number, not ", value.kind_name()));
  }
  std::string digits;
  if (letter == 'd' || letter == 'i') {
    digits = absl::StrCat(value.integer().value_or(static_cast<int64_t>(*number)));
  } else if (letter == 'x' && value.integer().has_value()) {
    digits = absl::StrFormat("%x", *value.integer());
  } else if (letter == 'f') {
    digits = absl::StrFormat("%.*f", conversion.precision < 0 ? 6 : conversion.precision, *number);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("the format %", std::string(1, letter), " is not supported"));
  }
  if (conversion.plus && digits[0] != '-') digits.insert(0, "+");
  const bool has_sign = digits[0] == '-' || digits[0] == '+';
  if (conversion.zeros && !conversion.left &&
      digits.size() < static_cast<size_t>(conversion.width)) {
    digits.insert(has_sign ? 1 : 0, static_cast<size_t>(conversion.width) - digits.size(), '0');
  }
  return MarkedText(digits);
}

}  // namespace

Value AttributeOf(const Value& object, absl::string_view name, Runtime& runtime) {
  if (object.Is<Namespace*>()) {
    const Value* found = object.As<Namespace*>()->attributes.Find(name);
    return found == nullptr ? Value() : *found;
  }
  if (object.Is<const Loop*>()) {
    const Value value = AttributeOfLoop(*object.As<const Loop*>(), name);
    if (!value.Is<Undefined>()) return value;
  }
  const Value method = FindMethod(object, name, runtime);
  if (!method.Is<Undefined>() || object.dict() == nullptr) return method;
  runtime.Charge(object.dict()->entries.size() / 8);
  const Value* found = object.dict()->Find(name);
  return found == nullptr ? Value() : *found;
}

Value ItemOf(const Value& object, const Value& key, Runtime& runtime) {
  if (object.dict() != nullptr) {
    runtime.Charge(object.dict()->entries.size() / 8);
    const Value* found =
        key.IsString() ? object.dict()->Find(key.bytes()) : object.dict()->Find(key, runtime);
    if (found != nullptr) return *found;
  }
  if (key.IsString()) return AttributeOf(object, key.bytes(), runtime);
  const std::optional<int64_t> asked = key.integer();
  if (!asked.has_value()) return Value();
  if (object.list() != nullptr) {
    const std::vector<Value>& items = object.list()->items;
    const auto size = static_cast<int64_t>(items.size());
    const int64_t index = *asked < 0 ? *asked + size : *asked;
    return index >= 0 && index < size ? items[static_cast<size_t>(index)] : Value();
  }
  if (object.IsString()) {
    runtime.ChargeBytes(object.text().size());
    const int64_t size = *LengthOf(object);
    const int64_t index = *asked < 0 ? *asked + size : *asked;
    if (index < 0 || index >= size) return Value();
    const size_t begin = ByteOfCharacter(object.bytes(), static_cast<size_t>(index));
    const size_t end = begin + DecodeUtf8(object.bytes().substr(begin)).bytes;
    return runtime.String(object.text().Substr(begin, end));
  }
  return Value();
}

absl::StatusOr<const MarkedText*> StringOf(const Value& value, absl::string_view what) {
  if (value.IsString()) return &value.text();
  return absl::InvalidArgumentError(absl::StrCat(what, " needs a string, not ", value.kind_name()));
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Runtime& runtime) {
  if (container.IsString()) {
    runtime.ChargeBytes(container.text().size());
    if (item.Is<Undefined>())
      return absl::InvalidArgumentError("an undefined value can't be in a string");
    ASSIGN_OR_RETURN(const MarkedText* part, StringOf(item, "in"));
    return absl::StrContains(container.bytes(), part->bytes());
  }
  if (container.dict() != nullptr) return container.dict()->Find(item, runtime) != nullptr;
  if (container.Is<Undefined>()) return false;
  if (container.list() == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("nothing can be in a value of type ", container.kind_name()));
  }
  for (const Value& candidate : container.list()->items) {
    if (Equals(candidate, item, runtime)) return true;
  }
  return false;
}

absl::StatusOr<MarkedText> FormatPercent(const MarkedText& format,
                                         absl::Span<const Value> arguments, Runtime& runtime) {
  MarkedText out;
  absl::string_view rest = format.bytes();
  while (!rest.empty()) {
    const size_t percent = std::min(rest.find('%'), rest.size());
    out.Append(format.Part(rest.substr(0, percent)));
    rest.remove_prefix(percent);
    if (rest.empty()) break;
    rest.remove_prefix(1);
    const Conversion conversion = ReadConversion(rest);
    if (rest.empty()) return absl::InvalidArgumentError("a format ends in %");
    const char letter = rest[0];
    rest.remove_prefix(1);
    if (letter == '%') {
      out.Append("%", Origin::kTemplate);
      continue;
    }
    if (arguments.empty()) return absl::InvalidArgumentError("too few arguments for a format");
    ASSIGN_OR_RETURN(const MarkedText text, Convert(conversion, letter, arguments[0], runtime));
    arguments.remove_prefix(1);
    const size_t characters = CountCharacters(text.bytes());
    const auto width = static_cast<size_t>(conversion.width);
    const std::string padding(width > characters ? width - characters : 0, ' ');
    if (!conversion.left) out.Append(padding, Origin::kTemplate);
    out.Append(text);
    if (conversion.left) out.Append(padding, Origin::kTemplate);
    if (!runtime.Reserve(text.size() + padding.size())) return runtime.status();
  }
  if (!arguments.empty()) return absl::InvalidArgumentError("too many arguments for a format");
  return out;
}

absl::StatusOr<BoundArguments> BoundArguments::Bind(
    const Arguments& arguments, std::initializer_list<absl::string_view> names) {
  BoundArguments bound;
  bound.names_ = names;
  bound.values_.resize(names.size());
  if (arguments.positional.size() > names.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "takes at most ", names.size(), " arguments, not ", arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    bound.values_[i] = arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.named) {
    const auto found = std::find(bound.names_.begin(), bound.names_.end(), name);
    if (found == bound.names_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("has no argument named \"", Printable(name, 40), "\""));
    }
    std::optional<Value>& slot = bound.values_[static_cast<size_t>(found - bound.names_.begin())];
    if (slot.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("was given \"", name, "\" twice"));
    }
    slot = value;
  }
  return bound;
}

absl::StatusOr<int64_t> BoundArguments::Integer(size_t i, int64_t otherwise) const {
  if (!Has(i) || values_[i]->Is<None>()) return otherwise;
  if (const std::optional<int64_t> value = values_[i]->integer()) return *value;
  return absl::InvalidArgumentError(
      absl::StrCat("needs an integer as \"", names_[i], "\", not ", values_[i]->kind_name()));
}

absl::StatusOr<const MarkedText*> BoundArguments::Text(size_t i,
                                                       const MarkedText* otherwise) const {
  if (!Has(i) || values_[i]->Is<None>()) return otherwise;
  if (values_[i]->IsString()) return &values_[i]->text();
  return absl::InvalidArgumentError(
      absl::StrCat("needs a string as \"", names_[i], "\", not ", values_[i]->kind_name()));
}

}  // namespace efedllm::jinja
