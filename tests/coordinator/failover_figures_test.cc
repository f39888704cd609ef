#include "coordinator/failover_figures.h"

#include <gtest/gtest.h>

#include "coordinator/serving_metrics.h"
#include "prometheus/registry.h"

namespace efedllm {
namespace {

TEST(FailoverFigures, AreThoseThatTheSchedulerCounts) {
  prometheus::Registry registry;
  SchedulerMetrics metrics(registry);
  EXPECT_EQ(FailoversIn(registry.Collect()).count, 0u);
  EXPECT_EQ(FailoversIn(registry.Collect()).mean_pause_seconds, 0);
  metrics.failovers.Increment(2);
  metrics.failover_seconds.Observe(0.5);
  metrics.failover_seconds.Observe(1);
  metrics.kept_tokens.Increment(30);
  metrics.replayed_by_stages.Increment(20);
  metrics.replayed_from_tokens.Increment(10);
  const FailoverFigures figures = FailoversIn(registry.Collect());
  EXPECT_EQ(figures.count, 2u);
  EXPECT_DOUBLE_EQ(figures.mean_pause_seconds, 0.75);
  EXPECT_EQ(figures.kept_tokens, 30u);
  EXPECT_EQ(figures.replayed_by_stages_tokens, 20u);
  EXPECT_EQ(figures.replayed_from_tokens, 10u);
}

TEST(FailoverFigures, AreZeroWithoutMetrics) { EXPECT_EQ(FailoversIn({}).count, 0u); }

}  // namespace
}  // namespace efedllm
