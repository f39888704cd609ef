#include "common/machine.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

TEST(Machine, ReadsMemAvailable) {
  EXPECT_EQ(ParseMemAvailable("MemTotal:  100 kB\nMemAvailable:   2048 kB\nCached: 1 kB\n"),
            uint64_t{2048} << 10);
  EXPECT_EQ(ParseMemAvailable("MemTotal:  100 kB\n"), 0u);
  EXPECT_EQ(ParseMemAvailable("MemAvailable: nonsense kB"), 0u);
}

TEST(Machine, ReadsACgroupsCpuQuotaRoundedUp) {
  EXPECT_EQ(ParseCpuMax("200000 100000\n"), 2);
  EXPECT_EQ(ParseCpuMax("150000 100000"), 2);
  EXPECT_EQ(ParseCpuMax("max 100000"), 0);
  EXPECT_EQ(ParseCpuMax(""), 0);
  EXPECT_EQ(ParseCpuMax("1 0"), 0);
}

TEST(Machine, ThereIsACpuAndMemory) {
  EXPECT_GE(AvailableCpus(), 1);
  EXPECT_GT(AvailableMemoryBytes(), 0u);
}

}  // namespace
}  // namespace efedllm
