// Machines, networks and models by name, for cluster files that need not be exact.
#ifndef EFEDLLM_SIMULATOR_PRESETS_H_
#define EFEDLLM_SIMULATOR_PRESETS_H_

#include <string>

#include "absl/strings/string_view.h"
#include "simulator/sim_spec.h"

namespace efedllm {

// nullptr: no such preset. The names are for messages: "office-2020, server-2023".
const NodeProfile* FindNodePreset(absl::string_view name);
std::string NodePresetNames();
const SimLink* FindLinkPreset(absl::string_view name);
std::string LinkPresetNames();
const SimModel* FindModelPreset(absl::string_view name);  // its bytes_per_weight is 0
std::string ModelPresetNames();

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_PRESETS_H_
