// One logger for a daemon, to stderr: text for people, or one JSON object a line for machines.
// Everything logs through spdlog::info and its like; what a peer or client wrote goes through
// Printable() first.
#ifndef EFEDLLM_COMMON_LOGGING_H_
#define EFEDLLM_COMMON_LOGGING_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace efedllm {

// level: trace, debug, info, warn, error, off. InvalidArgument: another word. Call once, in main.
absl::Status InitLogging(absl::string_view level, bool json);

// text with control characters and what is no UTF-8 escaped, of at most its first max_size bytes:
// safe to log and to put into an error message. Always UTF-8.
std::string Printable(absl::string_view text, size_t max_size = 120);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_LOGGING_H_
