#include "app/text_input.h"

#include <cstdio>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/units.h"

namespace efedllm {
namespace {

constexpr size_t kMaxTextBytes = size_t{64} << 20;

}  // namespace

absl::StatusOr<std::string> ReadText(const std::string& path) {
  if (path != "-") return ReadFile(path, kMaxTextBytes);
  std::string text;
  char buffer[1 << 16];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) {
    text.append(buffer, n);
    if (text.size() > kMaxTextBytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the text is larger than ", FormatBytes(kMaxTextBytes)));
    }
  }
  if (std::ferror(stdin)) return absl::UnavailableError("cannot read standard input");
  return text;
}

}  // namespace efedllm
