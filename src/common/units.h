// Sizes as people write them: "512MiB", "8G", "1.5 GiB".
#ifndef EFEDLLM_COMMON_UNITS_H_
#define EFEDLLM_COMMON_UNITS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

// Suffixes B, K, M, G, T with optional "iB" or "B", in powers of 1024; none means bytes.
// InvalidArgument says what was wrong. "0" is 0: the flag's help says what that means.
absl::StatusOr<uint64_t> ParseBytes(absl::string_view text);

// "8.0 GiB", "512 B".
std::string FormatBytes(uint64_t bytes);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_UNITS_H_
