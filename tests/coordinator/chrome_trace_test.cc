#include "coordinator/chrome_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace efedllm {
namespace {

using nlohmann::json;

constexpr NodeId kA{1}, kB{2};

absl::Time At(int64_t micros) { return absl::FromUnixMicros(5'000'000'000 + micros); }

// Submitted at `begin`, back after 1000 us, through A and B.
StepTrace SomeStep(uint64_t step, int64_t begin) {
  StepTrace trace;
  trace.epoch = Epoch{3};
  trace.step = StepId{step};
  trace.first_position = 17;
  trace.tokens = 1;
  trace.rows = 8;
  trace.submitted = At(begin);
  trace.returned = At(begin + 1000);
  trace.head_begun = At(begin + 1010);
  trace.head_done = At(begin + 1060);
  const int64_t unix_micros = absl::ToUnixMicros(At(begin));
  trace.timings = std::make_shared<const std::vector<StageTiming>>(std::vector<StageTiming>{
      {kA, unix_micros + 100 + 7'000'000, 10, 20, 300, 30}, {kB, unix_micros + 500, 1, 2, 300, 3}});
  return trace;
}

json Traced(std::vector<StepTrace> steps) {
  RequestTrace trace;
  trace.request = "cmpl-1";
  trace.steps = std::move(steps);
  return json::parse(ChromeTrace(trace, {{kA, {"alpha \xff", absl::Seconds(7)}}}));
}

std::vector<json> Named(const json& trace, const std::string& name) {
  std::vector<json> events;
  for (const json& event : trace["traceEvents"]) {
    if (event["name"] == name) events.push_back(event);
  }
  return events;
}

TEST(ChromeTrace, HasEveryPartOfEveryHopAndToken) {
  const json trace = Traced({SomeStep(1, 0), SomeStep(2, 2000)});
  EXPECT_EQ(trace["otherData"]["request"], "cmpl-1");
  EXPECT_EQ(Named(trace, "wire").size(), 6u);
  for (const char* name : {"decode", "compute", "encode"}) {
    EXPECT_EQ(Named(trace, name).size(), 4u) << name;
  }
  EXPECT_EQ(Named(trace, "queue").size(), 6u);  // with the coordinator's, before the head
  EXPECT_EQ(Named(trace, "head").size(), 2u);
  EXPECT_EQ(Named(trace, "step").size(), 2u);
  const json compute = Named(trace, "compute")[0];
  EXPECT_EQ(compute["ph"], "X");
  EXPECT_EQ(compute["ts"], 130);  // A's clock is seven seconds ahead
  EXPECT_EQ(compute["dur"], 300);
  EXPECT_EQ(compute["args"]["step"], 1);
  EXPECT_EQ(compute["args"]["position"], 17);
  EXPECT_EQ(compute["args"]["tokens"], 1);
  EXPECT_EQ(compute["args"]["rows"], 8);
  std::vector<int> wires;
  for (const json& wire : Named(trace, "wire")) wires.push_back(wire["dur"]);
  EXPECT_EQ(wires, (std::vector<int>{100, 40, 194, 100, 40, 194}));
}

TEST(ChromeTrace, NamesATrackForEachNodeLinkAndPartOfTheCoordinator) {
  const json trace = Traced({SomeStep(1, 0)});
  std::vector<std::string> names;
  for (const char* kind : {"process_name", "thread_name"}) {
    for (const json& event : Named(trace, kind)) names.push_back(event["args"]["name"]);
  }
  const std::vector<std::string> expected = {
      "coordinator",
      "links",
      "alpha \xef\xbf\xbd (0000000000000001)",
      "0000000000000002",
      "scheduler",
      "head",
      "stage",
      "coordinator to alpha \xef\xbf\xbd (0000000000000001)",
      "alpha \xef\xbf\xbd (0000000000000001) to 0000000000000002",
      "0000000000000002 to coordinator"};
  for (const std::string& name : expected) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
}

TEST(ChromeTrace, EventsOfOneThreadNeverOverlap) {
  std::vector<StepTrace> steps;
  for (uint64_t i = 0; i < 50; ++i) {
    steps.push_back(SomeStep(i, static_cast<int64_t>(i * 317 % 5000)));
  }
  const json trace = Traced(steps);
  std::map<std::pair<int, int>, std::vector<std::pair<int64_t, int64_t>>> threads;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    const int64_t begin = event["ts"];
    threads[{event["pid"], event["tid"]}].emplace_back(begin, begin + int64_t{event["dur"]});
  }
  for (auto& [thread, events] : threads) {
    std::sort(events.begin(), events.end());
    for (size_t i = 1; i < events.size(); ++i) EXPECT_LE(events[i - 1].second, events[i].first);
  }
}

TEST(ChromeTrace, AStepWithoutStagesHasNoHops) {
  StepTrace step = SomeStep(1, 0);
  step.timings = std::make_shared<const std::vector<StageTiming>>();
  EXPECT_TRUE(Named(Traced({step}), "wire").empty());
  // Nor has one that the coordinator computed itself.
  step.timings = std::make_shared<const std::vector<StageTiming>>(
      std::vector<StageTiming>{{NodeId{0}, absl::ToUnixMicros(At(3)), 0, 5, 900, 0}});
  const json alone = Traced({step});
  EXPECT_TRUE(Named(alone, "wire").empty());
  EXPECT_EQ(Named(alone, "compute").size(), 1u);
}

}  // namespace
}  // namespace efedllm
