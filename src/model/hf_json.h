// The JSON files of a Hugging Face folder: parsed within bounds, and read with messages that name
// the key.
#ifndef EFEDLLM_MODEL_HF_JSON_H_
#define EFEDLLM_MODEL_HF_JSON_H_

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

// An object. InvalidArgument: no JSON, not an object, or nested more deeply than any such file is.
// A value takes up to about 30 times its text, so that the caller bounds the text.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text);

// The value under key; nullptr where it is missing or null, which mean the same in these files.
const nlohmann::json* FindJson(const nlohmann::json& object, const char* key);

// Typed look-ups with what a missing key means. InvalidArgument: another type, or negative.
absl::StatusOr<uint64_t> JsonUintOr(const nlohmann::json& object, const char* key,
                                    uint64_t otherwise);
absl::StatusOr<double> JsonNumberOr(const nlohmann::json& object, const char* key,
                                    double otherwise);
absl::StatusOr<bool> JsonBoolOr(const nlohmann::json& object, const char* key, bool otherwise);
absl::StatusOr<std::string> JsonStringOr(const nlohmann::json& object, const char* key,
                                         absl::string_view otherwise);
// As JsonUintOr, where nothing else will do. InvalidArgument: missing.
absl::StatusOr<uint64_t> JsonUint(const nlohmann::json& object, const char* key);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_HF_JSON_H_
