// ToJson: Python's json.dumps.
#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "text/jinja/runtime.h"
#include "text/jinja/value.h"
#include "text/utf8.h"

namespace efedllm::jinja {
namespace {

constexpr int kMaxNesting = 100;

void AppendUtf16(char32_t c, std::string& out) {
  if (c < 0x10000) {
    absl::StrAppendFormat(&out, "\\u%04x", static_cast<uint32_t>(c));
    return;
  }
  const auto rest = static_cast<uint32_t>(c) - 0x10000;
  absl::StrAppendFormat(&out, "\\u%04x\\u%04x", 0xd800 + (rest >> 10), 0xdc00 + (rest & 0x3ff));
}

std::string EscapeJson(absl::string_view run, bool is_ascii) {
  constexpr absl::string_view kLetters = "\"\\\n\r\t\b\f";
  constexpr absl::string_view kEscapes = "\"\\nrtbf";
  std::string escaped;
  while (!run.empty()) {
    const Utf8Char c = DecodeUtf8(run);
    const size_t known = kLetters.find(run[0]);
    if (known != absl::string_view::npos) {
      escaped += '\\';
      escaped += kEscapes[known];
    } else if (c.code_point < 0x20 || (is_ascii && c.code_point > 0x7e)) {
      AppendUtf16(c.code_point, escaped);
    } else {
      escaped.append(run.data(), c.bytes);
    }
    run.remove_prefix(c.bytes);
  }
  return escaped;
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Runtime& runtime) : style_(style), runtime_(runtime) {}

  absl::Status Write(const Value& value, int depth) {
    if (depth > kMaxNesting)
      return absl::InvalidArgumentError("tojson: the value is nested too deep");
    runtime_.ChargeBytes(value.IsString() ? value.text().size() : 1);
    RETURN_IF_ERROR(runtime_.status());
    if (value.IsString()) {
      WriteString(value.text());
      return absl::OkStatus();
    }
    if (value.list() != nullptr) return WriteList(*value.list(), depth);
    if (value.dict() != nullptr) return WriteDict(*value.dict(), depth);
    const std::optional<std::string> scalar = Scalar(value);
    if (!scalar.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tojson: a value of type ", value.kind_name(), " has no JSON"));
    }
    Add(*scalar);
    return absl::OkStatus();
  }

  MarkedText Take() { return std::move(out_); }

 private:
  static std::optional<std::string> Scalar(const Value& value) {
    if (value.Is<None>()) return "null";
    if (value.Is<bool>()) return value.As<bool>() ? "true" : "false";
    if (value.Is<int64_t>()) return absl::StrCat(value.As<int64_t>());
    if (!value.Is<double>()) return std::nullopt;
    const double number = value.As<double>();
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
    return FormatFloat(number);
  }

  void Add(absl::string_view text) {
    runtime_.Reserve(text.size());
    out_.Append(text, Origin::kTemplate);
  }
  void NewLine(int depth) {
    if (style_.indent < 0) return;
    const size_t spaces = static_cast<size_t>(style_.indent) * static_cast<size_t>(depth);
    if (runtime_.Reserve(spaces)) Add(absl::StrCat("\n", std::string(spaces, ' ')));
  }
  // Behind an item: with an indent the space of ", " goes, as Python has it.
  void Separate() {
    Add(style_.indent >= 0 && style_.item_separator == ", " ? "," : style_.item_separator);
  }

  void WriteString(const MarkedText& text) {
    Add("\"");
    text.ForEachRun([this](absl::string_view run, Origin origin) {
      const std::string escaped = EscapeJson(run, style_.is_ascii);
      runtime_.Reserve(escaped.size());
      out_.Append(escaped, origin);
    });
    Add("\"");
  }

  absl::Status WriteList(const List& list, int depth) {
    Add("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) Separate();
      NewLine(depth + 1);
      RETURN_IF_ERROR(Write(list.items[i], depth + 1));
    }
    if (!list.items.empty()) NewLine(depth);
    Add("]");
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Dict& dict, int depth) {
    std::vector<std::pair<Value, Value>> entries = dict.entries;
    runtime_.Reserve(entries.size() * 2 * sizeof(Value));
    if (style_.sorts_keys) {
      std::stable_sort(entries.begin(), entries.end(), [this](const auto& a, const auto& b) {
        return Less(a.first, b.first, runtime_).value_or(false);
      });
    }
    Add("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) Separate();
      NewLine(depth + 1);
      const Value& key = entries[i].first;
      if (key.IsString()) {
        WriteString(key.text());
      } else if (const std::optional<std::string> scalar = Scalar(key)) {
        Add(absl::StrCat("\"", *scalar, "\""));
      } else {
        return absl::InvalidArgumentError("tojson: a dict's keys must be strings");
      }
      Add(style_.key_separator);
      RETURN_IF_ERROR(Write(entries[i].second, depth + 1));
    }
    if (!entries.empty()) NewLine(depth);
    Add("}");
    return absl::OkStatus();
  }

  const JsonStyle& style_;
  Runtime& runtime_;
  MarkedText out_;
};

}  // namespace

absl::StatusOr<MarkedText> ToJson(const Value& value, const JsonStyle& style, Runtime& runtime) {
  JsonWriter writer(style, runtime);
  RETURN_IF_ERROR(writer.Write(value, 0));
  return writer.Take();
}

}  // namespace efedllm::jinja
