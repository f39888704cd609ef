#include "coordinator/stage_meters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/cluster_metrics.h"
#include "net/credentials.h"
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
    StepResult result;
    result.epoch = epoch;
    result.returned = At(begin + 2.5);
    result.timings = {
        {NodeId{1}, micros + 100'000, 0, 0, 1'000'000, 0, CodecSetting().number(), 3000},
        {NodeId{2}, micros + 1'300'000 + 60'000'000, 0, 0, 1'000'000, 0,
         CodecSetting{CodecId::kInt8, 0}.number(), 800}};
    result.received_codec = CodecSetting{CodecId::kKlt, 40}.number();
    result.received_bytes = 300;
    meters_.Observe(result, At(begin), /*rows=*/3);
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

TEST_F(StageMetersTest, CountsWhatCrossedEachHop) {
  Observe(Epoch{1}, 0);
  Observe(Epoch{1}, 2);
  const std::vector<HopTraffic> hops = meters_.Traffic();
  ASSERT_EQ(hops.size(), 3u);  // by where they begin: the coordinator, 1, 2
  EXPECT_EQ(hops[0].to, NodeId{1});
  EXPECT_EQ(hops[0].bytes, 6000u);
  EXPECT_EQ(hops[1].codec.id, CodecId::kInt8);
  EXPECT_EQ(hops[1].rows, 6u);
  EXPECT_EQ(hops[2].to, kCoordinatorNode);
  EXPECT_EQ(CodecLabel(hops[2].codec), CodecLabel({CodecId::kKlt, 40}));
  EXPECT_THAT(Text(), HasSubstr("efedllm_hop_activation_bytes_total{codec=\"int8\","
                                "from=\"0000000000000001\",to=\"0000000000000002\"} 1600"));
  Observe(Epoch{2}, 4);
  EXPECT_EQ(meters_.Traffic()[0].bytes, 3000u);  // of the epoch
}

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
  StepResult result;
  result.epoch = Epoch{2};
  result.returned = At(4);
  result.timings = {{NodeId{7}, absl::ToUnixMicros(At(3)), 0, 0, 100, 0}};
  meters_.Observe(result, At(3), /*rows=*/1);
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
