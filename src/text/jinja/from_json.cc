#include "text/jinja/from_json.h"

#include <string>
#include <utility>
#include <vector>

#include "common/status_macros.h"

namespace efedllm::jinja {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxJsonNesting = 64;

absl::StatusOr<Value> ValueOf(const Json& json, Origin origin, Runtime& runtime, int depth) {
  if (depth > kMaxJsonNesting) {
    return absl::InvalidArgumentError("a variable is nested too deep");
  }
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value(json.get<bool>());
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return Value(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value(json.get<double>());
    case Json::value_t::string:
      return runtime.String(MarkedText(json.get<std::string>(), origin));
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) {
        ASSIGN_OR_RETURN(items.emplace_back(), ValueOf(item, origin, runtime, depth + 1));
      }
      return runtime.NewList(std::move(items));
    }
    case Json::value_t::object: {
      Dict* dict = runtime.NewDict();
      for (const auto& [key, item] : json.items()) {
        ASSIGN_OR_RETURN(const Value value, ValueOf(item, origin, runtime, depth + 1));
        dict->entries.emplace_back(runtime.String(MarkedText(key, origin)), value);
      }
      return dict;
    }
    default:
      return Value(None());
  }
}

}  // namespace

absl::StatusOr<Value> FromJson(const Json& json, Origin origin, Runtime& runtime) {
  return ValueOf(json, origin, runtime, 0);
}

}  // namespace efedllm::jinja
