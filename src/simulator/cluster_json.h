// Reads a cluster file: JSON that says what to simulate.
#ifndef EFEDLLM_SIMULATOR_CLUSTER_JSON_H_
#define EFEDLLM_SIMULATOR_CLUSTER_JSON_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "simulator/sim_spec.h"

namespace efedllm {

inline constexpr size_t kMaxSimNodes = 1024;
inline constexpr uint32_t kMaxSimStreams = 4096;

// Reads a model's shape from a file, for {"model": {"gguf": path}}.
using ModelReader = std::function<absl::StatusOr<SimModel>(const std::string& path)>;

// The text may come from a stranger: every number is bounded, and so is what it makes us allocate.
// InvalidArgument says which key is wrong and what it may be.
absl::StatusOr<SimSpec> ParseClusterJson(absl::string_view text, const ModelReader& read_model);

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_CLUSTER_JSON_H_
