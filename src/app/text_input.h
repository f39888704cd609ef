// Texts that subcommands take.
#ifndef EFEDLLM_APP_TEXT_INPUT_H_
#define EFEDLLM_APP_TEXT_INPUT_H_

#include <string>

#include "absl/status/statusor.h"

namespace efedllm {

// A whole file, or standard input for "-". ResourceExhausted: more than 64 MiB.
absl::StatusOr<std::string> ReadText(const std::string& path);

}  // namespace efedllm

#endif  // EFEDLLM_APP_TEXT_INPUT_H_
