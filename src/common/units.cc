#include "common/units.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace efedllm {
namespace {

constexpr absl::string_view kPrefixes = "KMGTP";

}  // namespace

absl::StatusOr<uint64_t> ParseBytes(absl::string_view text) {
  const absl::Status bad = absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a size; write it like 512MiB or 8G"));
  absl::string_view number = absl::StripAsciiWhitespace(text);
  if (!absl::ConsumeSuffix(&number, "iB")) absl::ConsumeSuffix(&number, "B");
  double scale = 1;
  if (!number.empty()) {
    const size_t prefix = kPrefixes.find(absl::ascii_toupper(number.back()));
    if (prefix != absl::string_view::npos) {
      scale = std::ldexp(1.0, 10 * (static_cast<int>(prefix) + 1));
      number.remove_suffix(1);
    }
  }
  double value = 0;
  if (!absl::SimpleAtod(absl::StripAsciiWhitespace(number), &value)) return bad;
  if (!(value >= 0) || value * scale >= 0x1p63) return bad;
  return static_cast<uint64_t>(value * scale);
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  size_t prefix = 0;
  for (value /= 1024; value >= 1024 && prefix + 1 < kPrefixes.size(); value /= 1024) prefix++;
  return absl::StrFormat("%.1f %ciB", value, kPrefixes[prefix]);
}

}  // namespace efedllm
