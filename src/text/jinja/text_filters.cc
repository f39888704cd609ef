#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "text/char_class.h"
#include "text/jinja/builtins.h"
#include "text/jinja/filters.h"
#include "text/jinja/marked_string_ops.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace efedllm::jinja {
namespace {

using Result = absl::StatusOr<Value>;

template <MarkedText (*kMap)(const MarkedText&)>
Result MapText(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  return runtime.String(kMap(ToText(self, runtime)));
}

MarkedText TitleOfWords(const MarkedText& text) {
  return Title(text, [](char32_t c) {
    return IsPythonSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  });
}

MarkedText Escape(const MarkedText& text) {
  MarkedText escaped;
  text.ForEachRun([&escaped](absl::string_view run, Origin origin) {
    escaped.Append(
        absl::StrReplaceAll(
            run, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}}),
        origin);
  });
  return escaped;
}

Result Trim(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"chars"}));
  ASSIGN_OR_RETURN(const MarkedText* chars, bound.Text(0, nullptr));
  return runtime.String(Strip(ToText(self, runtime), Ends::kBoth, chars));
}

Result ReplaceText(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"old", "new", "count"}));
  ASSIGN_OR_RETURN(const MarkedText* old, StringOf(bound[0], "replace"));
  ASSIGN_OR_RETURN(const MarkedText* by, StringOf(bound[1], "replace"));
  ASSIGN_OR_RETURN(const int64_t most, bound.Integer(2, -1));
  if (old->empty()) return absl::InvalidArgumentError("\"\" can't be replaced");
  return runtime.String(Replace(ToText(self, runtime), old->bytes(), *by, most, runtime));
}

// The lines of text behind the first get the indent; the first too, empty ones too, where asked.
Result Indent(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"width", "first", "blank"}));
  MarkedText indent;
  if (bound[0].IsString()) {
    indent = bound[0].text();
  } else {
    ASSIGN_OR_RETURN(const int64_t width, bound.Integer(0, 4));
    if (width > 1000) return absl::InvalidArgumentError("indent takes a width of at most 1000");
    indent = MarkedText(std::string(width > 0 ? static_cast<size_t>(width) : 0, ' '));
  }
  MarkedText text = ToText(self, runtime);
  text.Append("\n", Origin::kTemplate);
  const std::vector<MarkedText> lines = SplitLines(text);
  if (!runtime.Reserve(lines.size() * (sizeof(MarkedText) + indent.size() + 1))) {
    return runtime.status();
  }
  MarkedText out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.Append("\n", Origin::kTemplate);
    const bool indents = i == 0 ? bound.Bool(1, false) : bound.Bool(2, false) || !lines[i].empty();
    if (indents) out.Append(indent);
    out.Append(lines[i]);
  }
  return runtime.String(std::move(out));
}

Result WordCount(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  const MarkedText text = ToText(self, runtime);
  absl::string_view rest = text.bytes();
  int64_t count = 0;
  bool in_word = false;
  while (!rest.empty()) {
    const Utf8Char c = DecodeUtf8(rest);
    const CharClass kind = ClassOf(c.code_point);
    const bool is_word =
        kind == CharClass::kLetter || kind == CharClass::kNumber || c.code_point == '_';
    if (is_word && !in_word) ++count;
    in_word = is_word;
    rest.remove_prefix(c.bytes);
  }
  return Value(count);
}

Result Format(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const MarkedText* format, StringOf(self, "format"));
  if (!arguments.named.empty()) {
    return absl::InvalidArgumentError("arguments with names are not supported");
  }
  ASSIGN_OR_RETURN(MarkedText text, FormatPercent(*format, arguments.positional, runtime));
  return runtime.String(std::move(text));
}

Result ToStringValue(const Value& self, const Arguments& arguments, Runtime& runtime) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  return self.IsString() ? self : runtime.String(ToText(self, runtime));
}

Result ToInteger(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"default"}));
  const Value otherwise = bound.Has(0) ? bound[0] : Value(int64_t{0});
  if (self.integer().has_value()) return Value(*self.integer());
  double number = 0;
  if (self.IsString()) {
    const absl::string_view text = TrimPython(self.bytes());
    int64_t whole = 0;
    if (absl::SimpleAtoi(text, &whole)) return Value(whole);
    if (!absl::SimpleAtod(text, &number)) return otherwise;
  } else if (self.Is<double>()) {
    number = self.As<double>();
  } else {
    return otherwise;
  }
  if (!(std::fabs(number) < 9e18)) return otherwise;
  return Value(static_cast<int64_t>(number));
}

Result ToFloat(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"default"}));
  if (self.number().has_value()) return Value(*self.number());
  double number = 0;
  if (self.IsString() && absl::SimpleAtod(TrimPython(self.bytes()), &number)) return Value(number);
  return bound.Has(0) ? bound[0] : Value(0.0);
}

Result Abs(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  if (self.Is<double>()) return Value(std::fabs(self.As<double>()));
  const std::optional<int64_t> whole = self.integer();
  if (!whole.has_value() || *whole == std::numeric_limits<int64_t>::min()) {
    return absl::InvalidArgumentError("needs a number");
  }
  return Value(*whole < 0 ? -*whole : *whole);
}

Result Round(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"precision", "method"}));
  const std::optional<double> number = self.number();
  if (!number.has_value()) return absl::InvalidArgumentError("needs a number");
  ASSIGN_OR_RETURN(const int64_t precision, bound.Integer(0, 0));
  if (precision < -300 || precision > 300) return absl::InvalidArgumentError("is out of bounds");
  const std::string method = bound[1].IsString() ? bound[1].text().bytes() : "common";
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = *number * scale;
  if (method == "ceil") return Value(std::ceil(scaled) / scale);
  if (method == "floor") return Value(std::floor(scaled) / scale);
  return Value(std::nearbyint(scaled) / scale);  // halves to even, as Python's round
}

// The separators=(',', ':') that json.dumps takes.
absl::Status ReadSeparators(const Value& value, JsonStyle& style) {
  if (value.Is<None>() || value.Is<Undefined>()) {
    if (style.indent >= 0) style.item_separator = ",";
    return absl::OkStatus();
  }
  const List* pair = value.list();
  if (pair == nullptr || pair->items.size() != 2) {
    return absl::InvalidArgumentError("needs two separators");
  }
  ASSIGN_OR_RETURN(const MarkedText* item, StringOf(pair->items[0], "separators"));
  ASSIGN_OR_RETURN(const MarkedText* key, StringOf(pair->items[1], "separators"));
  style.item_separator = item->bytes();
  style.key_separator = key->bytes();
  return absl::OkStatus();
}

Result ToJsonText(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"ensure_ascii", "indent",
                                                                      "separators", "sort_keys"}));
  JsonStyle style;
  // json.dumps(x, indent) of Jinja's own filter, whose first argument is the indent, is seen too.
  const bool first_is_indent = bound[0].Is<int64_t>() && !bound.Has(1);
  style.is_ascii = !first_is_indent && bound.Bool(0, false);
  ASSIGN_OR_RETURN(style.indent, bound.Integer(first_is_indent ? 0 : 1, -1));
  if (style.indent > 100) return absl::InvalidArgumentError("takes an indent of at most 100");
  RETURN_IF_ERROR(ReadSeparators(bound[2], style));
  style.sorts_keys = bound.Bool(3, false);
  ASSIGN_OR_RETURN(MarkedText json, ToJson(self, style, runtime));
  return runtime.String(std::move(json));
}

Result Default(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"default_value", "boolean"}));
  const bool is_missing = self.Is<Undefined>() || (bound.Bool(1, false) && !IsTrue(self));
  if (!is_missing) return self;
  return bound.Has(0) ? bound[0] : runtime.String(std::string());
}

Result Same(const Value& self, const Arguments& arguments, Runtime& /*runtime*/) {
  RETURN_IF_ERROR(BoundArguments::Bind(arguments, {}).status());
  return self;
}

Result Attribute(const Value& self, const Arguments& arguments, Runtime& runtime) {
  ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(arguments, {"name"}));
  ASSIGN_OR_RETURN(const MarkedText* name, StringOf(bound[0], "attr"));
  return AttributeOf(self, name->bytes(), runtime);
}

constexpr Filter kFilters[] = {
    {"trim", Trim},
    {"upper", MapText<Upper>},
    {"lower", MapText<Lower>},
    {"capitalize", MapText<Capitalize>},
    {"title", MapText<TitleOfWords>},
    {"escape", MapText<Escape>},
    {"e", MapText<Escape>},
    {"forceescape", MapText<Escape>},
    {"replace", ReplaceText},
    {"indent", Indent},
    {"wordcount", WordCount},
    {"format", Format},
    {"string", ToStringValue},
    {"int", ToInteger},
    {"float", ToFloat},
    {"abs", Abs},
    {"round", Round},
    {"tojson", ToJsonText},
    {"default", Default},
    {"d", Default},
    {"safe", Same},
    {"attr", Attribute},
};

}  // namespace

absl::Span<const Filter> TextFilters() { return kFilters; }

Result CallFilter(absl::string_view name, const Value& self, const Arguments& arguments,
                  Runtime& runtime) {
  if (self.IsString()) runtime.ChargeBytes(self.text().size());
  if (self.list() != nullptr) runtime.Charge(self.list()->items.size());
  RETURN_IF_ERROR(runtime.status());
  for (const absl::Span<const Filter> table : {TextFilters(), SequenceFilters()}) {
    for (const Filter& filter : table) {
      if (filter.name != name) continue;
      Result result = filter.call(self, arguments, runtime);
      if (result.ok()) return result;
      const absl::string_view why = result.status().message();
      if (!runtime.ok() || absl::StartsWith(why, "the filter ")) return result;
      return absl::Status(result.status().code(), absl::StrCat("the filter ", name, ": ", why));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the filter \"", Printable(name, 40), "\" is not supported"));
}

}  // namespace efedllm::jinja
