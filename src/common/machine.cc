#include "common/machine.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/file.h"

namespace efedllm {
namespace {

// A file of /proc or /sys; empty: it is not there.
std::string ReadKernelFile(const char* path) { return ReadFile(path, 64 << 10).value_or(""); }

// nullopt: no such file or no number ("max").
std::optional<uint64_t> ReadNumber(const char* path) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadKernelFile(path)), &number)) {
    return std::nullopt;
  }
  return number;
}

// What the cgroup (v2, then v1) leaves, its caches counted as free.
std::optional<uint64_t> CgroupMemoryLeft() {
  for (const auto& [limit_path, usage_path] :
       {std::pair<const char*, const char*>{"/sys/fs/cgroup/memory.max",
                                            "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
         "/sys/fs/cgroup/memory/memory.usage_in_bytes"}}) {
    const std::optional<uint64_t> limit = ReadNumber(limit_path);
    if (!limit) continue;
    const uint64_t used = ReadNumber(usage_path).value_or(0);
    // Usage counts the page cache, which gives way; half of it is a careful guess.
    return *limit > used / 2 ? *limit - used / 2 : 0;
  }
  return std::nullopt;
}

}  // namespace

uint64_t ParseMemAvailable(absl::string_view meminfo) {
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    if (!absl::ConsumePrefix(&line, "MemAvailable:")) continue;
    absl::ConsumeSuffix(&line, "kB");
    uint64_t kib = 0;
    return absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kib) ? kib << 10 : 0;
  }
  return 0;
}

double ParseCpuMax(absl::string_view cpu_max) {
  const std::vector<absl::string_view> parts =
      absl::StrSplit(absl::StripAsciiWhitespace(cpu_max), absl::ByAnyChar(" \n"));
  uint32_t quota = 0;
  uint32_t period = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &quota) ||
      !absl::SimpleAtoi(parts[1], &period) || quota == 0 || period == 0) {
    return std::numeric_limits<double>::infinity();
  }
  return static_cast<double>(quota) / period;
}

CpuCgroups FindCpuCgroups(absl::string_view self_cgroup) {
  CpuCgroups found;
  for (absl::string_view line : absl::StrSplit(self_cgroup, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    const bool v2 = parts[1].empty();
    const bool v1 = std::find(controllers.begin(), controllers.end(), "cpu") != controllers.end();
    for (std::string path(parts[2]);; path.resize(path.rfind('/'))) {
      if (path == "/") path.clear();
      if (v2) found.cpu_max_files.push_back(absl::StrCat("/sys/fs/cgroup", path, "/cpu.max"));
      if (v1) found.v1_folders.push_back(absl::StrCat("/sys/fs/cgroup/cpu", path));
      if (path.rfind('/') == std::string::npos) break;
    }
  }
  return found;
}

double CpuQuota() {
  double quota = std::numeric_limits<double>::infinity();
  const CpuCgroups cgroups = FindCpuCgroups(ReadKernelFile("/proc/self/cgroup"));
  for (const std::string& file : cgroups.cpu_max_files) {
    quota = std::min(quota, ParseCpuMax(ReadKernelFile(file.c_str())));
  }
  for (const std::string& folder : cgroups.v1_folders) {
    quota = std::min(
        quota, ParseCpuMax(absl::StrCat(ReadKernelFile((folder + "/cpu.cfs_quota_us").c_str()),
                                        ReadKernelFile((folder + "/cpu.cfs_period_us").c_str()))));
  }
  return quota;
}

uint64_t AvailableMemoryBytes() {
  const uint64_t machine = ParseMemAvailable(ReadKernelFile("/proc/meminfo"));
  const std::optional<uint64_t> cgroup = CgroupMemoryLeft();
  return cgroup ? std::min(machine, *cgroup) : machine;
}

int AvailableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  const double quota = std::ceil(CpuQuota());
  return static_cast<int>(std::clamp<double>(quota, 1, std::max(cpus, 1)));
}

}  // namespace efedllm
