#include "wire/field_checks.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr size_t kMaxAddressBytes = 300;
constexpr double kMaxRate = 1e18;

}  // namespace

absl::Status WrongField(absl::string_view field, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("malformed message: ", field, " ", why));
}

absl::Status CheckRange(absl::string_view field, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return WrongField(field, absl::StrCat("is ", value, ", not in [", least, ", ", most, "]"));
}

absl::Status CheckText(absl::string_view field, absl::string_view text, size_t max_size) {
  if (text.size() > max_size) {
    return WrongField(field, absl::StrCat("has ", text.size(), " bytes; at most ", max_size));
  }
  for (const char c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      return WrongField(field, "has control characters");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRate(absl::string_view field, double value) {
  if (value >= 0 && value <= kMaxRate) return absl::OkStatus();  // false for NaN
  return WrongField(field, "is no rate");
}

absl::Status CheckAddress(absl::string_view field, absl::string_view address) {
  RETURN_IF_ERROR(CheckText(field, address, kMaxAddressBytes));
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port == 0 || port > 65535) {
    return WrongField(field, "is not HOST:PORT");
  }
  for (const char c : address.substr(0, colon)) {
    const bool allowed = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' ||
                         c == '-' || c == '_' || c == ':' || c == '[' || c == ']' || c == '%';
    if (!allowed) return WrongField(field, "is not HOST:PORT");
  }
  return absl::OkStatus();
}

}  // namespace efedllm
