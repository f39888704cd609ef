#include "text/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "text/jinja/runtime.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace efedllm::jinja {
namespace {

constexpr int kMaxNesting = 100;  // of lists and dicts that are compared or printed

bool CheckNesting(int depth, Runtime& runtime) {
  if (depth > kMaxNesting) {
    runtime.Fail(absl::InvalidArgumentError(
        absl::StrCat("lists or dicts are nested deeper than ", kMaxNesting)));
  }
  return runtime.Charge(1);
}

void AppendReprOfString(const MarkedText& text, MarkedText& out) {
  const bool has_single = absl::StrContains(text.bytes(), "'");
  const char quote = has_single && !absl::StrContains(text.bytes(), "\"") ? '"' : '\'';
  const std::string mark(1, quote);
  out.Append(mark, Origin::kTemplate);
  text.ForEachRun([&](absl::string_view run, Origin origin) {
    std::string escaped;
    for (const char c : run) {
      switch (c) {
        case '\n':
          escaped += "\\n";
          break;
        case '\r':
          escaped += "\\r";
          break;
        case '\t':
          escaped += "\\t";
          break;
        default:
          if (c == '\\' || c == quote) escaped += '\\';
          if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) {
            absl::StrAppendFormat(&escaped, "\\x%02x", static_cast<uint8_t>(c));
          } else {
            escaped += c;
          }
      }
    }
    out.Append(escaped, origin);
  });
  out.Append(mark, Origin::kTemplate);
}

void AppendReprOfDict(const Dict& dict, Runtime& runtime, MarkedText& out, int depth) {
  out.Append("{", Origin::kTemplate);
  for (size_t i = 0; i < dict.entries.size() && runtime.ok(); ++i) {
    if (i > 0) out.Append(", ", Origin::kTemplate);
    AppendRepr(dict.entries[i].first, runtime, out, depth + 1);
    out.Append(": ", Origin::kTemplate);
    AppendRepr(dict.entries[i].second, runtime, out, depth + 1);
  }
  out.Append("}", Origin::kTemplate);
}

void AppendReprOfList(const List& list, Runtime& runtime, MarkedText& out, int depth) {
  out.Append(list.is_tuple ? "(" : "[", Origin::kTemplate);
  for (size_t i = 0; i < list.items.size() && runtime.ok(); ++i) {
    if (i > 0) out.Append(", ", Origin::kTemplate);
    AppendRepr(list.items[i], runtime, out, depth + 1);
  }
  const bool is_single = list.is_tuple && list.items.size() == 1;
  out.Append(!list.is_tuple ? "]" : is_single ? ",)" : ")", Origin::kTemplate);
}

bool EqualLists(const List& a, const List& b, Runtime& runtime, int depth) {
  if (a.is_tuple != b.is_tuple || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!Equals(a.items[i], b.items[i], runtime, depth + 1)) return false;
  }
  return true;
}

bool EqualDicts(const Dict& a, const Dict& b, Runtime& runtime, int depth) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.Find(key, runtime);
    if (other == nullptr || !Equals(value, *other, runtime, depth + 1)) return false;
  }
  return true;
}

}  // namespace

std::optional<int64_t> Value::integer() const {
  if (Is<bool>()) return As<bool>() ? 1 : 0;
  if (Is<int64_t>()) return As<int64_t>();
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (Is<double>()) return As<double>();
  const std::optional<int64_t> whole = integer();
  if (whole.has_value()) return static_cast<double>(*whole);
  return std::nullopt;
}

const char* Value::kind_name() const {
  constexpr const char* kNames[] = {"undefined", "NoneType", "bool",    "int",       "float",
                                    "str",       "list",     "dict",    "namespace", "loop",
                                    "method",    "macro",    "function"};
  return list() != nullptr && list()->is_tuple ? "tuple" : kNames[data_.index()];
}

const Value* Dict::Find(absl::string_view key) const {
  for (const auto& [k, v] : entries) {
    if (k.IsString() && k.bytes() == key) return &v;
  }
  return nullptr;
}

const Value* Dict::Find(const Value& key, Runtime& runtime) const {
  for (const auto& [k, v] : entries) {
    if (Equals(k, key, runtime)) return &v;
  }
  return nullptr;
}

void Dict::Set(const Value& key, const Value& value, Runtime& runtime) {
  for (auto& [k, v] : entries) {
    if (!Equals(k, key, runtime)) continue;
    v = value;
    return;
  }
  runtime.Reserve(2 * sizeof(Value));
  entries.emplace_back(key, value);
}

bool IsTrue(const Value& value) {
  if (value.Is<Undefined>() || value.Is<None>()) return false;
  if (value.IsString()) return !value.text().empty();
  if (value.list() != nullptr) return !value.list()->items.empty();
  if (value.dict() != nullptr) return !value.dict()->entries.empty();
  const std::optional<double> number = value.number();
  return !number.has_value() || *number != 0;
}

bool Equals(const Value& a, const Value& b, Runtime& runtime, int depth) {
  if (!CheckNesting(depth, runtime)) return false;
  if (a.integer().has_value() && b.integer().has_value()) return *a.integer() == *b.integer();
  if (a.number().has_value() && b.number().has_value()) return *a.number() == *b.number();
  if (a.data().index() != b.data().index()) return false;
  if (a.IsString()) {
    if (a.text().size() != b.text().size()) return false;
    return runtime.ChargeBytes(a.text().size()) && a.bytes() == b.bytes();
  }
  if (a.list() != nullptr) {
    return a.list() == b.list() || EqualLists(*a.list(), *b.list(), runtime, depth);
  }
  if (a.dict() != nullptr) {
    return a.dict() == b.dict() || EqualDicts(*a.dict(), *b.dict(), runtime, depth);
  }
  if (a.Is<Namespace*>()) return a.As<Namespace*>() == b.As<Namespace*>();
  if (a.Is<const Macro*>()) return a.As<const Macro*>() == b.As<const Macro*>();
  if (a.Is<Function>()) return a.As<Function>() == b.As<Function>();
  return a.Is<Undefined>() || a.Is<None>();
}

std::optional<bool> Less(const Value& a, const Value& b, Runtime& runtime, int depth) {
  if (!CheckNesting(depth, runtime)) return false;
  if (a.integer().has_value() && b.integer().has_value()) return *a.integer() < *b.integer();
  if (a.number().has_value() && b.number().has_value()) return *a.number() < *b.number();
  if (a.IsString() && b.IsString()) {
    // UTF-8 keeps the order of code points.
    return runtime.ChargeBytes(std::min(a.text().size(), b.text().size())) && a.bytes() < b.bytes();
  }
  if (a.list() == nullptr || b.list() == nullptr || a.list()->is_tuple != b.list()->is_tuple) {
    return std::nullopt;
  }
  const std::vector<Value>& x = a.list()->items;
  const std::vector<Value>& y = b.list()->items;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    if (!Equals(x[i], y[i], runtime, depth + 1)) return Less(x[i], y[i], runtime, depth + 1);
  }
  return x.size() < y.size();
}

std::string FormatFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  const double size = std::fabs(value);
  const bool has_exponent = size != 0 && (size < 1e-4 || size >= 1e16);
  char digits[40];
  const auto end =
      std::to_chars(digits, digits + sizeof digits, value,
                    has_exponent ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(digits, end.ptr);
  if (!has_exponent && !absl::StrContains(text, ".")) text += ".0";
  return text;
}

void AppendRepr(const Value& value, Runtime& runtime, MarkedText& out, int depth) {
  if (!CheckNesting(depth, runtime)) return;
  const size_t before = out.size();
  if (value.IsString()) {
    AppendReprOfString(value.text(), out);
  } else if (value.list() != nullptr) {
    AppendReprOfList(*value.list(), runtime, out, depth);
    return;
  } else if (value.dict() != nullptr) {
    AppendReprOfDict(*value.dict(), runtime, out, depth);
    return;
  } else if (value.Is<Undefined>()) {
    out.Append("Undefined", Origin::kTemplate);
  } else {
    out.Append(ToText(value, runtime));
  }
  runtime.Reserve(out.size() - before);
}

MarkedText ToText(const Value& value, Runtime& runtime) {
  if (value.IsString()) return value.text();
  if (value.Is<Undefined>()) return MarkedText();
  if (value.Is<None>()) return MarkedText("None");
  if (value.Is<bool>()) return MarkedText(value.As<bool>() ? "True" : "False");
  if (value.Is<int64_t>()) return MarkedText(absl::StrCat(value.As<int64_t>()));
  if (value.Is<double>()) return MarkedText(FormatFloat(value.As<double>()));
  if (value.list() == nullptr && value.dict() == nullptr) {
    return MarkedText(absl::StrCat("<", value.kind_name(), ">"));
  }
  MarkedText text;
  AppendRepr(value, runtime, text);
  return text;
}

absl::StatusOr<std::vector<Value>> ItemsOf(const Value& value, Runtime& runtime) {
  if (value.Is<Undefined>()) return std::vector<Value>();
  if (value.list() != nullptr) {
    runtime.Reserve(value.list()->items.size() * sizeof(Value));
    return value.list()->items;
  }
  std::vector<Value> items;
  if (value.dict() != nullptr) {
    runtime.Reserve(value.dict()->entries.size() * sizeof(Value));
    for (const auto& entry : value.dict()->entries) items.push_back(entry.first);
    return items;
  }
  if (!value.IsString()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a value of type ", value.kind_name(), " can't be iterated"));
  }
  for (size_t at = 0; at < value.text().size() && runtime.ok();) {
    const size_t end = at + DecodeUtf8(value.bytes().substr(at)).bytes;
    items.push_back(runtime.String(value.text().Substr(at, end)));
    runtime.Reserve(sizeof(Value));
    at = end;
  }
  return items;
}

std::optional<int64_t> LengthOf(const Value& value) {
  if (value.Is<Undefined>()) return 0;
  if (value.IsString()) return static_cast<int64_t>(CountCharacters(value.bytes()));
  if (value.list() != nullptr) return static_cast<int64_t>(value.list()->items.size());
  if (value.dict() != nullptr) return static_cast<int64_t>(value.dict()->entries.size());
  return std::nullopt;
}

}  // namespace efedllm::jinja
