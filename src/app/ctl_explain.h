// `efedllm-ctl plan --explain`: why the layers are where they are, and how fast that should be.
#ifndef EFEDLLM_APP_CTL_EXPLAIN_H_
#define EFEDLLM_APP_CTL_EXPLAIN_H_

#include <string>

#include "absl/status/status.h"

namespace efedllm {

// Asks the running coordinator and prints to stdout. state_dir: its; empty: the default.
absl::Status RunExplain(const std::string& state_dir, bool json);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_EXPLAIN_H_
