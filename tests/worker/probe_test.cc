#include "worker/probe.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

TEST(Probe, ReadsMemAvailable) {
  EXPECT_EQ(ParseMemAvailable("MemTotal:  100 kB\nMemAvailable:   2048 kB\nCached: 1 kB\n"),
            uint64_t{2048} << 10);
  EXPECT_EQ(ParseMemAvailable("MemTotal:  100 kB\n"), 0u);
  EXPECT_EQ(ParseMemAvailable("MemAvailable: nonsense kB"), 0u);
}

TEST(Probe, ReadsACgroupsCpuQuotaRoundedUp) {
  EXPECT_EQ(ParseCpuMax("200000 100000\n"), 2);
  EXPECT_EQ(ParseCpuMax("150000 100000"), 2);
  EXPECT_EQ(ParseCpuMax("max 100000"), 0);
  EXPECT_EQ(ParseCpuMax(""), 0);
  EXPECT_EQ(ParseCpuMax("1 0"), 0);
}

TEST(Probe, MeasuresSomethingOfEverything) {
  Compute compute = *Compute::Create(2, "auto");
  const NodeProfile profile = MeasureNode(compute, 0);
  EXPECT_EQ(profile.threads, 2u);
  EXPECT_GT(profile.memory_bytes, 0u);
  EXPECT_GT(profile.read_bytes_per_second, 1e7);
  EXPECT_GT(profile.int8_ops_per_second, 1e7);
  EXPECT_GT(profile.f32_flops_per_second, 1e7);
}

TEST(Probe, TheMemoryThatTheUserGivesCounts) {
  Compute compute = *Compute::Create(0, "auto");
  EXPECT_EQ(MeasureNode(compute, 12345).memory_bytes, 12345u);
}

TEST(Probe, ThereIsACpuAndMemory) {
  EXPECT_GE(AvailableCpus(), 1);
  EXPECT_GT(AvailableMemoryBytes(), 0u);
}

}  // namespace
}  // namespace efedllm
