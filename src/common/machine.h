// What this process may use of the machine that it runs on.
#ifndef EFEDLLM_COMMON_MACHINE_H_
#define EFEDLLM_COMMON_MACHINE_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace efedllm {

// What this process could still use: the machine's MemAvailable, or what is left of its cgroup's
// limit if that is less.
uint64_t AvailableMemoryBytes();

// CPUs that this process may use: its affinity mask, or its cgroup's quota if that is less. At
// least 1.
int AvailableCpus();

// The pure parts, for tests. /proc/meminfo's text; 0: not found.
uint64_t ParseMemAvailable(absl::string_view meminfo);
// cgroup v2's cpu.max, "200000 100000" or "max 100000"; rounded up; 0: no limit.
int ParseCpuMax(absl::string_view cpu_max);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_MACHINE_H_
