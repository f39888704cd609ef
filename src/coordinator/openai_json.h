// JSON at the border: what a client sent becomes values, or an error in OpenAI's words.
#ifndef EFEDLLM_COORDINATOR_OPENAI_JSON_H_
#define EFEDLLM_COORDINATOR_OPENAI_JSON_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "net/http_server.h"
#include "nlohmann/json.hpp"

namespace efedllm {

// What {"error": {...}} says.
struct ApiError {
  int status = 400;  // HTTP
  std::string message;
  std::string param;                                  // the request's field; empty: null
  std::string code;                                   // empty: null
  absl::Duration retry_after = absl::ZeroDuration();  // zero: what is usual for 429 and 503
};

template <class T>
using ApiResult = std::variant<T, ApiError>;

// The reply for an error; its type follows from the status. 429 and 503 get a Retry-After, in whole
// seconds.
HttpReply ErrorReplyFor(const ApiError& error);
// The same object, for an event of a stream that has begun.
nlohmann::json ErrorJson(const ApiError& error);

// Text of a value. Bytes that are not UTF-8 become U+FFFD.
std::string DumpJson(const nlohmann::json& json);

// A request's body: an object. Refused: what is not JSON or not UTF-8 (with the position), nesting
// deeper than 64, more than 2^19 values.
ApiResult<nlohmann::json> ParseRequestBody(absl::string_view body);

// Typed look-ups in an object; a missing field and null are the same. The first error sticks, all
// later look-ups then return nothing. Borrows the object.
class FieldReader {
 public:
  explicit FieldReader(const nlohmann::json& object) : object_(object) {}

  // nullptr: missing, null, or an error before.
  const nlohmann::json* Find(const char* name) const;
  std::optional<bool> Bool(const char* name);
  std::optional<int64_t> Integer(const char* name, int64_t least, int64_t most);
  std::optional<double> Number(const char* name);  // finite
  std::optional<std::string> String(const char* name);

  void Fail(std::string param, std::string message);
  const std::optional<ApiError>& error() const { return error_; }

 private:
  const nlohmann::json& object_;
  std::optional<ApiError> error_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_OPENAI_JSON_H_
