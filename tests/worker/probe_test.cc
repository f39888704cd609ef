#include "worker/probe.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

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

}  // namespace
}  // namespace efedllm
