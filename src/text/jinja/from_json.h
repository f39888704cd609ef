// JSON -> a template's values.
#ifndef EFEDLLM_TEXT_JINJA_FROM_JSON_H_
#define EFEDLLM_TEXT_JINJA_FROM_JSON_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "text/jinja/marked_text.h"
#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace efedllm::jinja {

// Strings, keys too, are of this origin. InvalidArgument: nested deeper than 64.
absl::StatusOr<Value> FromJson(const nlohmann::ordered_json& json, Origin origin, Runtime& runtime);

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_FROM_JSON_H_
