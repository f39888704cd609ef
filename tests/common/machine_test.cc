#include "common/machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Machine, ReadsMemAvailable) {
  EXPECT_EQ(ParseMemAvailable("MemTotal:  100 kB\nMemAvailable:   2048 kB\nCached: 1 kB\n"),
            uint64_t{2048} << 10);
  EXPECT_EQ(ParseMemAvailable("MemTotal:  100 kB\n"), 0u);
  EXPECT_EQ(ParseMemAvailable("MemAvailable: nonsense kB"), 0u);
}

TEST(Machine, ReadsACgroupsCpuQuota) {
  EXPECT_EQ(ParseCpuMax("200000 100000\n"), 2);
  EXPECT_EQ(ParseCpuMax("15000\n100000\n"), 0.15);
  EXPECT_TRUE(std::isinf(ParseCpuMax("max 100000")));
  EXPECT_TRUE(std::isinf(ParseCpuMax("-1\n100000\n")));
  EXPECT_TRUE(std::isinf(ParseCpuMax("")));
  EXPECT_TRUE(std::isinf(ParseCpuMax("1 0")));
}

TEST(Machine, FindsItsCgroupsUpToTheRoot) {
  const CpuCgroups v2 = FindCpuCgroups("0::/user.slice/w1\n");
  EXPECT_THAT(v2.cpu_max_files,
              ElementsAre("/sys/fs/cgroup/user.slice/w1/cpu.max",
                          "/sys/fs/cgroup/user.slice/cpu.max", "/sys/fs/cgroup/cpu.max"));
  EXPECT_THAT(v2.v1_folders, IsEmpty());
  const CpuCgroups v1 = FindCpuCgroups("4:memory:/a\n1:cpu,cpuacct:/w1\n2:cpuset:/\n");
  EXPECT_THAT(v1.v1_folders, ElementsAre("/sys/fs/cgroup/cpu/w1", "/sys/fs/cgroup/cpu"));
  EXPECT_THAT(FindCpuCgroups("nonsense").cpu_max_files, IsEmpty());
}

TEST(Machine, ThereIsACpuAndMemory) {
  EXPECT_GE(AvailableCpus(), 1);
  EXPECT_GT(AvailableMemoryBytes(), 0u);
}

}  // namespace
}  // namespace efedllm
