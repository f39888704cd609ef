// What this process may use of the machine that it runs on.
#ifndef EFEDLLM_COMMON_MACHINE_H_
#define EFEDLLM_COMMON_MACHINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace efedllm {

// What this process could still use: the machine's MemAvailable, or what is left of its cgroup's
// limit if that is less.
uint64_t AvailableMemoryBytes();

// CPUs that this process may use: its affinity mask, or its cgroups' quota if that is less, rounded
// up. At least 1.
int AvailableCpus();
// CPU time that its cgroups allow it for each second, as a number of CPUs; infinity: no quota.
double CpuQuota();

// The pure parts, for tests. /proc/meminfo's text; 0: not found.
uint64_t ParseMemAvailable(absl::string_view meminfo);
// cgroup v2's cpu.max, "150000 100000" or "max 100000", or v1's cpu.cfs_quota_us and
// cpu.cfs_period_us with a space between, in CPUs; infinity: no limit.
double ParseCpuMax(absl::string_view cpu_max);
// Of /proc/self/cgroup's text: where the files are that may limit the CPU time, from the process's
// own cgroup up to the root, v2's cpu.max and v1's folders.
struct CpuCgroups {
  std::vector<std::string> cpu_max_files;
  std::vector<std::string> v1_folders;
};
CpuCgroups FindCpuCgroups(absl::string_view self_cgroup);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_MACHINE_H_
