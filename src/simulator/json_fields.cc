#include "simulator/json_fields.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/logging.h"
#include "common/units.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr size_t kMaxTextBytes = size_t{8} << 20;
constexpr int kMaxDepth = 16;
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxPathBytes = 4096;

std::string Show(double value) { return absl::StrFormat("%.6g", value); }

// What the parser's events forbid, beyond JSON's own grammar.
struct StrictEvents {
  std::vector<std::set<std::string>> keys;
  std::string error;

  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxDepth && error.empty()) {
      error = absl::StrCat("it is nested more than ", kMaxDepth, " deep");
    }
    if (event == json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      if (!keys.empty()) keys.pop_back();
    } else if (event == json::parse_event_t::key && !keys.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && error.empty()) {
        error = absl::StrCat("an object has the key \"", Printable(key), "\" twice");
      }
    }
    return error.empty();
  }
};

}  // namespace

absl::StatusOr<json> ParseStrictJson(absl::string_view text) {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the file has ", FormatBytes(text.size()),
                                                   "; at most ", FormatBytes(kMaxTextBytes)));
  }
  StrictEvents events;
  json value;
  try {
    value = json::parse(text.begin(), text.end(), std::ref(events));
  } catch (const json::exception& error) {
    if (events.error.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("not JSON: ", Printable(absl::string_view(error.what()).substr(0, 200))));
    }
  }
  if (!events.error.empty()) return absl::InvalidArgumentError(events.error);
  if (!value.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return value;
}

JsonFields::JsonFields(const json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (!object_.is_object()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": must be an object"));
  }
}

std::string JsonFields::Place(absl::string_view key) const {
  return where_.empty() ? std::string(key) : absl::StrCat(where_, ".", key);
}

void JsonFields::Fail(absl::string_view key, absl::string_view what) {
  Take(absl::InvalidArgumentError(absl::StrCat(Place(key), ": ", what)));
}

void JsonFields::Take(const absl::Status& status) {
  if (status_.ok()) status_ = status;
}

bool JsonFields::Has(const char* key) const {
  return object_.is_object() && object_.find(key) != object_.end();
}

const json* JsonFields::Find(const char* key, bool required) {
  known_.emplace_back(key);
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(key);
  if (found != object_.end()) return &*found;
  if (required) Fail(key, "is missing");
  return nullptr;
}

double JsonFields::Number(const char* key, double least, double most,
                          std::optional<double> otherwise) {
  const json* value = Find(key, !otherwise);
  if (value == nullptr) return otherwise.value_or(least);
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (!(number >= least && number <= most)) {
    Fail(key, absl::StrCat("must be a number from ", Show(least), " to ", Show(most)));
    return least;
  }
  return number;
}

uint64_t JsonFields::Integer(const char* key, uint64_t least, uint64_t most,
                             std::optional<uint64_t> otherwise) {
  const json* value = Find(key, !otherwise);
  if (value == nullptr) return otherwise.value_or(least);
  const bool whole = value->is_number_unsigned();
  const uint64_t number = whole ? value->get<uint64_t>() : 0;
  if (!whole || number < least || number > most) {
    Fail(key, absl::StrCat("must be a whole number from ", least, " to ", most));
    return least;
  }
  return number;
}

bool JsonFields::Bool(const char* key, bool otherwise) {
  const json* value = Find(key, false);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) {
    Fail(key, "must be true or false");
    return otherwise;
  }
  return value->get<bool>();
}

std::string JsonFields::TextOf(const char* key, const json& value, size_t most) {
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  if (text.empty() || text.size() > most || Printable(text, most) != text) {
    Fail(key, absl::StrCat("must be text of 1 to ", most, " printable characters"));
    return "?";
  }
  return text;
}

std::string JsonFields::Text(const char* key, std::optional<std::string> otherwise) {
  const json* value = Find(key, !otherwise);
  return value == nullptr ? otherwise.value_or("?") : TextOf(key, *value, kMaxNameBytes);
}

std::string JsonFields::Path(const char* key) {
  const json* value = Find(key, true);
  return value == nullptr ? "?" : TextOf(key, *value, kMaxPathBytes);
}

uint64_t JsonFields::Bytes(const char* key, uint64_t most, std::optional<uint64_t> otherwise) {
  const json* value = Find(key, !otherwise);
  if (value == nullptr) return otherwise.value_or(0);
  if (!value->is_string()) return Integer(key, 0, most, otherwise);
  const absl::StatusOr<uint64_t> bytes = ParseBytes(value->get<std::string>().substr(0, 32));
  if (!bytes.ok() || *bytes > most) {
    Fail(key, absl::StrCat("must be a size like \"16GiB\", at most ", FormatBytes(most)));
    return 0;
  }
  return *bytes;
}

const json* JsonFields::Object(const char* key) {
  const json* value = Find(key, false);
  if (value == nullptr || value->is_object()) return value;
  Fail(key, "must be an object");
  return nullptr;
}

const json* JsonFields::Array(const char* key, size_t most) {
  const json* value = Find(key, false);
  if (value == nullptr || (value->is_array() && value->size() <= most)) return value;
  Fail(key, absl::StrCat("must be an array of at most ", most, " elements"));
  return nullptr;
}

absl::Status JsonFields::Finish() {
  if (!status_.ok() || !object_.is_object()) return status_;
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    std::sort(known_.begin(), known_.end());
    known_.erase(std::unique(known_.begin(), known_.end()), known_.end());
    Fail(Printable(absl::string_view(key).substr(0, kMaxNameBytes)),
         absl::StrCat("is not known here; there are ", absl::StrJoin(known_, ", ")));
    break;
  }
  return status_;
}

}  // namespace efedllm
