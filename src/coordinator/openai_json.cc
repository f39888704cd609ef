#include "coordinator/openai_json.h"

#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 64;           // the library's destructor and printer are recursive
constexpr size_t kMaxValues = 1 << 19;  // each takes 16 bytes and more

const char* TypeOf(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 429:
      return "rate_limit_error";
    case 500:
      return "server_error";
    case 503:
      return "service_unavailable_error";
    case 504:
      return "timeout_error";
    default:
      return "invalid_request_error";
  }
}

json OrNull(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

// What a parser would allocate, bounded before it starts. A position is a byte, from 1 on.
std::optional<std::string> TooComplex(absl::string_view body) {
  int depth = 0;
  size_t values = 0;
  bool in_string = false;
  for (size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '\0') {  // which the parser takes for the end
      return absl::StrCat("the body is not valid JSON: a NUL at byte ", i + 1);
    }
    if (c == '"') in_string = true;
    if (c == ',' || c == '[' || c == '{') ++values;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    if (depth > kMaxDepth) {
      return absl::StrCat("the JSON is nested deeper than ", kMaxDepth, " levels at byte ", i + 1);
    }
    if (values > kMaxValues) return absl::StrCat("the JSON has more than ", kMaxValues, " values");
  }
  return std::nullopt;
}

// "[json.exception.parse_error.101] parse error at line 1, column 2: ... ; last read: ..." without
// the library's own words and the client's bytes.
std::string Explain(absl::string_view what) {
  const size_t bracket = what.find("] ");
  if (bracket != absl::string_view::npos) what.remove_prefix(bracket + 2);
  what = what.substr(0, what.find("; last read"));
  return absl::StrCat("the body is not valid JSON: ", what.substr(0, 200));
}

const char* KindOf(const json& value) { return value.type_name(); }

}  // namespace

json ErrorJson(const ApiError& error) {
  return {{"error",
           {{"message", error.message},
            {"type", TypeOf(error.status)},
            {"param", OrNull(error.param)},
            {"code", OrNull(error.code)}}}};
}

HttpReply ErrorReplyFor(const ApiError& error) {
  HttpReply reply;
  reply.status = error.status;
  reply.body = DumpJson(ErrorJson(error));
  if (error.status != 429 && error.status != 503) return reply;
  const absl::Duration usual = error.status == 429 ? absl::Seconds(1) : absl::Seconds(5);
  const absl::Duration wait = error.retry_after > absl::ZeroDuration() ? error.retry_after : usual;
  const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(wait, absl::Seconds(1)));
  reply.headers.emplace_back("Retry-After", absl::StrCat(seconds));
  return reply;
}

std::string DumpJson(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

ApiResult<json> ParseRequestBody(absl::string_view body) {
  if (auto why = TooComplex(body)) return ApiError{400, *why, "", ""};
  try {
    json value = json::parse(body.begin(), body.end());
    if (value.is_object()) return value;
    return ApiError{400, absl::StrCat("the body must be a JSON object, not ", KindOf(value)), "",
                    ""};
  } catch (const json::exception& e) {
    return ApiError{400, Explain(e.what()), "", ""};
  }
}

const json* FieldReader::Find(const char* name) const {
  if (error_.has_value()) return nullptr;
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<bool> FieldReader::Bool(const char* name) {
  const json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  Fail(name, absl::StrCat(name, " must be true or false, not ", KindOf(*value)));
  return std::nullopt;
}

std::optional<int64_t> FieldReader::Integer(const char* name, int64_t least, int64_t most) {
  const json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) {
    Fail(name, absl::StrCat(name, " must be an integer, not ",
                            value->is_number() ? "a fraction" : KindOf(*value)));
    return std::nullopt;
  }
  constexpr auto kMost = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  const bool huge = value->is_number_unsigned() && value->get<uint64_t>() > kMost;
  if (!huge && value->get<int64_t>() >= least && value->get<int64_t>() <= most) {
    return value->get<int64_t>();
  }
  Fail(name, absl::StrCat(name, " is ", value->dump(), "; it must be from ", least, " to ", most));
  return std::nullopt;
}

std::optional<double> FieldReader::Number(const char* name) {
  const json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number() && std::isfinite(value->get<double>())) return value->get<double>();
  Fail(name, absl::StrCat(name, " must be a number, not ", KindOf(*value)));
  return std::nullopt;
}

std::optional<std::string> FieldReader::String(const char* name) {
  const json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  Fail(name, absl::StrCat(name, " must be a string, not ", KindOf(*value)));
  return std::nullopt;
}

void FieldReader::Fail(std::string param, std::string message) {
  if (!error_.has_value()) error_ = ApiError{400, std::move(message), std::move(param), ""};
}

}  // namespace efedllm
