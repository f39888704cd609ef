#include "incentive/toml_fields.h"

#include <algorithm>
#include <cmath>
#include <utility>

// Ours is read without exceptions, and never nested as deep as the library would allow.
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#define TOML_MAX_NESTED_VALUES 16
#include <toml++/toml.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr size_t kMaxTomlBytes = size_t{64} << 10;
// Of a dotted key: the library nests a table for each, and takes them apart by recursion.
constexpr size_t kMaxDotsInLine = 8;
constexpr size_t kMaxListLength = 64;
constexpr size_t kMaxNameBytes = 64;
constexpr double kMillion = 1e6;

absl::Status AtLine(uint32_t line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", what));
}

std::string Name(std::string_view name) {
  return Printable(absl::string_view(name.data(), name.size()), kMaxNameBytes);
}

// The library takes for granted (by an assertion, or worse) that a name begins behind "[" or "[[".
bool NamesTable(absl::string_view line) {
  line.remove_prefix(absl::StartsWith(line, "[[") ? 2 : 1);
  const size_t first = line.find_first_not_of(" \t");
  if (first == absl::string_view::npos) return false;
  const char c = line[first];
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '"' ||
         c == '\'';
}

bool IsPlain(char c) { return (c >= ' ' && c <= '~') || c == '\t' || c == '\r'; }

absl::Status CheckLines(absl::string_view text) {
  if (text.size() > kMaxTomlBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file has ", text.size(), " bytes; at most ", kMaxTomlBytes));
  }
  uint32_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    const size_t first = line.find_first_not_of(" \t");
    if (first == absl::string_view::npos || line[first] == '#') continue;
    // The library's tables of other letters have holes that are undefined behaviour.
    if (!std::all_of(line.begin(), line.end(), IsPlain)) {
      return AtLine(number,
                    "not TOML that is read here: other characters than ASCII stand only in "
                    "comments on lines of their own");
    }
    // So that a line that looks like a comment is one.
    if (absl::StrContains(line, R"(""")") || absl::StrContains(line, "'''")) {
      return AtLine(number, "text over several lines is not read here");
    }
    if (line[first] == '[' && !NamesTable(line.substr(first))) {
      return AtLine(number, "not TOML: a table needs a name behind the bracket");
    }
    const auto dots = static_cast<size_t>(std::count(line.begin(), line.end(), '.'));
    if (dots > kMaxDotsInLine) {
      return AtLine(number, absl::StrCat("more than ", kMaxDotsInLine, " dots in a line"));
    }
  }
  return absl::OkStatus();
}

TomlValue ValueOf(const toml::node& node) {
  TomlValue value;
  value.line = node.source().begin.line;
  if (const auto* integer = node.as_integer()) {
    value.kind = TomlValue::Kind::kInteger;
    value.integer = integer->get();
    value.number = static_cast<double>(value.integer);
  } else if (const auto* number = node.as_floating_point()) {
    value.kind = TomlValue::Kind::kFloat;
    value.number = number->get();
  } else if (const auto* text = node.as_string()) {
    value.kind = TomlValue::Kind::kText;
    value.text = text->get();
  } else if (const auto* truth = node.as_boolean()) {
    value.kind = TomlValue::Kind::kBool;
    value.truth = truth->get();
  }
  return value;
}

// A table within which there are scalars alone.
absl::StatusOr<TomlTable> LeafTable(const std::string& name, const toml::table& table) {
  TomlTable leaf;
  leaf.name = name;
  leaf.line = table.source().begin.line;
  for (const auto& [key, node] : table) {
    if (node.is_table() || node.is_array()) {
      return AtLine(node.source().begin.line,
                    absl::StrCat(name, ".", Name(key.str()), " must be a single value"));
    }
    leaf.values.emplace(std::string(key.str()), ValueOf(node));
  }
  return leaf;
}

absl::StatusOr<std::vector<TomlTable>> ListOfTables(const std::string& name,
                                                    const toml::array& array) {
  if (array.size() > kMaxListLength) {
    return AtLine(array.source().begin.line,
                  absl::StrCat(Name(name), ": at most ", kMaxListLength, " of them"));
  }
  std::vector<TomlTable> list;
  list.reserve(array.size());
  for (const toml::node& node : array) {
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      return AtLine(node.source().begin.line, absl::StrCat(Name(name), " must be tables"));
    }
    ASSIGN_OR_RETURN(TomlTable leaf, LeafTable(Name(name), *table));
    list.push_back(std::move(leaf));
  }
  return list;
}

std::string Shares(uint64_t millionths) {
  return absl::StrFormat("%.10g", static_cast<double>(millionths) / kMillion);
}

}  // namespace

absl::StatusOr<TomlDocument> ParseToml(absl::string_view text) {
  RETURN_IF_ERROR(CheckLines(text));
  const toml::parse_result parsed = toml::parse(std::string_view(text.data(), text.size()));
  if (!parsed) {
    return AtLine(
        parsed.error().source().begin.line,
        absl::StrCat("not TOML: ", Printable(absl::string_view(parsed.error().description().data(),
                                                               parsed.error().description().size()),
                                             200)));
  }
  TomlDocument document;
  document.top.line = 1;
  for (const auto& [key, node] : parsed.table()) {
    const std::string name(key.str());
    if (const toml::table* table = node.as_table()) {
      ASSIGN_OR_RETURN(TomlTable leaf, LeafTable(Name(name), *table));
      document.tables.emplace(name, std::move(leaf));
    } else if (const toml::array* array = node.as_array()) {
      ASSIGN_OR_RETURN(std::vector<TomlTable> list, ListOfTables(name, *array));
      document.lists.emplace(name, std::move(list));
    } else {
      document.top.values.emplace(name, ValueOf(node));
    }
  }
  return document;
}

bool TomlFields::Has(absl::string_view key) const {
  return table_.values.find(std::string(key)) != table_.values.end();
}

const TomlValue* TomlFields::Find(absl::string_view key, bool required) {
  known_.emplace_back(key);
  const auto found = table_.values.find(std::string(key));
  if (found != table_.values.end()) return &found->second;
  if (required) Fail(key, "is missing");
  return nullptr;
}

void TomlFields::Fail(absl::string_view key, absl::string_view what) {
  if (!status_.ok()) return;
  const auto found = table_.values.find(std::string(key));
  const uint32_t line = found == table_.values.end() ? table_.line : found->second.line;
  const std::string dot = table_.name.empty() ? "" : ".";
  status_ = AtLine(line, absl::StrCat(table_.name, dot, Printable(key, kMaxNameBytes), " ", what));
}

uint64_t TomlFields::Integer(absl::string_view key, uint64_t least, uint64_t most,
                             std::optional<uint64_t> otherwise) {
  const TomlValue* value = Find(key, !otherwise);
  if (value == nullptr) return otherwise.value_or(least);
  const auto number = static_cast<uint64_t>(value->integer);
  if (value->kind != TomlValue::Kind::kInteger || value->integer < 0 || number < least ||
      number > most) {
    Fail(key, absl::StrCat("must be a whole number from ", least, " to ", most));
    return least;
  }
  return number;
}

uint64_t TomlFields::Millionths(absl::string_view key, uint64_t least, uint64_t most,
                                std::optional<uint64_t> otherwise) {
  const TomlValue* value = Find(key, !otherwise);
  if (value == nullptr) return otherwise.value_or(least);
  const bool number =
      value->kind == TomlValue::Kind::kInteger || value->kind == TomlValue::Kind::kFloat;
  const double scaled = std::floor(value->number * kMillion + 0.5);
  // Written such that NaN is refused.
  if (!number || !(scaled >= static_cast<double>(least) && scaled <= static_cast<double>(most))) {
    Fail(key, absl::StrCat("must be a number from ", Shares(least), " to ", Shares(most)));
    return least;
  }
  return static_cast<uint64_t>(scaled);
}

std::string TomlFields::Text(absl::string_view key, std::optional<std::string> otherwise) {
  const TomlValue* value = Find(key, !otherwise);
  if (value == nullptr) return otherwise.value_or("?");
  if (value->kind != TomlValue::Kind::kText || value->text.empty() ||
      value->text.size() > kMaxNameBytes || Printable(value->text, kMaxNameBytes) != value->text) {
    Fail(key, absl::StrCat("must be text of 1 to ", kMaxNameBytes, " printable characters"));
    return "?";
  }
  return value->text;
}

absl::Status TomlFields::Finish() {
  for (const auto& [key, value] : table_.values) {
    if (!status_.ok()) break;
    if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
      Fail(key, "is not known here");
    }
  }
  return status_;
}

}  // namespace efedllm
