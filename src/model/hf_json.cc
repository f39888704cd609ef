#include "model/hf_json.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;

// How deeply the text nests objects and arrays.
int DepthOf(absl::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > deepest) deepest = depth;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

absl::Status WrongType(const char* key, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("\"", key, "\" is not ", wanted));
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(absl::string_view text) {
  if (const int depth = DepthOf(text); depth > kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON nested ", depth, " deep; at most ", kMaxDepth, " are allowed"));
  }
  json value = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat("not JSON: it begins with \"",
                                                   Printable(text.substr(0, 20)),
                                                   "\", or ends too early; download it again"));
  }
  if (!value.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return value;
}

const json* FindJson(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<uint64_t> JsonUintOr(const json& object, const char* key, uint64_t otherwise) {
  const json* value = FindJson(object, key);
  if (value == nullptr) return otherwise;
  if (value->is_number_unsigned()) return value->get<uint64_t>();
  if (value->is_number_float()) {  // 32.0, as some tools write
    const double number = value->get<double>();
    if (number >= 0 && number < 1e15 && number == std::floor(number)) {
      return static_cast<uint64_t>(number);
    }
  }
  return WrongType(key, "a whole number of 0 or more");
}

absl::StatusOr<double> JsonNumberOr(const json& object, const char* key, double otherwise) {
  const json* value = FindJson(object, key);
  if (value == nullptr) return otherwise;
  if (value->is_number()) return value->get<double>();
  return WrongType(key, "a number");
}

absl::StatusOr<bool> JsonBoolOr(const json& object, const char* key, bool otherwise) {
  const json* value = FindJson(object, key);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  return WrongType(key, "true or false");
}

absl::StatusOr<std::string> JsonStringOr(const json& object, const char* key,
                                         absl::string_view otherwise) {
  const json* value = FindJson(object, key);
  if (value == nullptr) return std::string(otherwise);
  if (value->is_string()) return value->get<std::string>();
  return WrongType(key, "a string");
}

absl::StatusOr<uint64_t> JsonUint(const json& object, const char* key) {
  if (FindJson(object, key) == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("\"", key, "\" is missing"));
  }
  return JsonUintOr(object, key, 0);
}

}  // namespace efedllm
