#include "coordinator/stage_meters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/cluster_metrics.h"
#include "prometheus/text_serializer.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

absl::Time At(double seconds) { return absl::FromUnixSeconds(1000) + absl::Seconds(seconds); }

TEST(BusyMeter, IsTheShareOfTheLastTenSeconds) {
  BusyMeter meter;
  EXPECT_EQ(meter.Share(At(0)), 0);
  for (int second = 0; second < 20; ++second) meter.Add(At(second + 0.5), At(second + 0.75));
  EXPECT_DOUBLE_EQ(meter.Share(At(20)), 0.25);
  EXPECT_DOUBLE_EQ(meter.Share(At(25)), 0.15);  // idle since
  EXPECT_EQ(meter.Share(At(100)), 0);
}

TEST(BusyMeter, SpreadsWhatRunsForSeconds) {
  BusyMeter meter;
  meter.Add(At(1.5), At(8));
  EXPECT_DOUBLE_EQ(meter.Share(At(11)), 0.65);
  EXPECT_DOUBLE_EQ(meter.Share(At(14)), 0.5);  // [3, 13)
}

TEST(BusyMeter, IsNeverMoreThanAll) {
  BusyMeter meter;
  meter.Add(At(-100000), At(10));
  meter.Add(At(0), At(10));
  EXPECT_EQ(meter.Share(At(11)), 1);
}

class StageMetersTest : public testing::Test {
 protected:
  // One second of work on node 1, then a second on node 2.
  void Observe(Epoch epoch, double begin) {
    const int64_t micros = absl::ToUnixMicros(At(begin));
    meters_.Observe(epoch, 0, At(begin), At(begin + 2.5),
                    {{NodeId{1}, micros + 100'000, 0, 0, 1'000'000, 0},
                     {NodeId{2}, micros + 1'300'000 + 60'000'000, 0, 0, 1'000'000, 0}});
  }

  std::string Text() {
    ClusterStatus status;
    status.members.push_back({});
    status.members.back().node = NodeId{2};
    status.members.back().hello.name = "beta";
    status.members.back().steps = 42;
    status.members.back().counters.compute_micros = 1'500'000;
    const ClusterMetrics cluster(
        clock_, [status] { return status; }, meters_);
    std::vector<prometheus::MetricFamily> families = registry_.Collect();
    for (auto& family : cluster.Collect()) families.push_back(family);
    return prometheus::TextSerializer().Serialize(families);
  }

  ManualClock clock_{At(11)};
  prometheus::Registry registry_;
  StageMeters meters_{registry_, [] {
                        return std::map<NodeId, absl::Duration>{{NodeId{2}, absl::Seconds(60)}};
                      }};
};

TEST_F(StageMetersTest, SaysHowBusyEachStageIs) {
  EXPECT_TRUE(meters_.Busy(At(0)).empty());
  for (int i = 0; i < 4; ++i) Observe(Epoch{1}, 2.0 * i);
  const std::vector<StageBusy> busy = meters_.Busy(At(11));
  ASSERT_EQ(busy.size(), 2u);
  EXPECT_EQ(busy[0].node, NodeId{1});
  EXPECT_EQ(busy[1].stage, 1u);
  EXPECT_NEAR(busy[0].share, 0.4, 0.011);
  EXPECT_NEAR(busy[1].share, 0.4, 0.011);
}

TEST_F(StageMetersTest, ANewEpochBeginsAnew) {
  Observe(Epoch{1}, 0);
  meters_.Observe(Epoch{2}, 0, At(3), At(4),
                  {{NodeId{7}, absl::ToUnixMicros(At(3)), 0, 0, 100, 0}});
  const std::vector<StageBusy> busy = meters_.Busy(At(11));
  ASSERT_EQ(busy.size(), 1u);
  EXPECT_EQ(busy[0].node, NodeId{7});
}

TEST_F(StageMetersTest, TellsPrometheusOfStagesHopsAndNodes) {
  for (int i = 0; i < 4; ++i) Observe(Epoch{1}, 2.0 * i);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("efedllm_stage_busy_ratio{node=\"0000000000000002\",name=\"beta\","
                              "chain=\"0\",stage=\"1\"} 0.4"));
  EXPECT_THAT(text, HasSubstr("efedllm_node_steps_total{node=\"0000000000000002\","
                              "name=\"beta\"} 42"));
  EXPECT_THAT(text, HasSubstr("efedllm_node_compute_seconds_total{node=\"0000000000000002\","
                              "name=\"beta\"} 1.5"));
  EXPECT_THAT(text, Not(HasSubstr("efedllm_node_rtt_seconds{")));  // not known
  EXPECT_THAT(text, HasSubstr("efedllm_hop_wire_seconds_count{from=\"coordinator\","
                              "to=\"0000000000000001\"} 4"));
  // 0.2 s each: the difference of the clocks is not in it.
  EXPECT_THAT(text, HasSubstr("efedllm_hop_wire_seconds_sum{from=\"0000000000000001\","
                              "to=\"0000000000000002\"} 0.8"));
}

}  // namespace
}  // namespace efedllm
