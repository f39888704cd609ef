#include "simulator/cluster_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/file.h"

namespace efedllm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

absl::StatusOr<SimSpec> Parse(const std::string& text) {
  return ParseClusterJson(text, [](const std::string& path) -> absl::StatusOr<SimModel> {
    return absl::NotFoundError("no file " + path);
  });
}

json Least() {
  return {{"model", {{"preset", "llama-3.1-8b"}, {"weights", "q8_0"}}},
          {"coordinator", {{"preset", "server-2023"}}},
          {"nodes", {{{"preset", "office-2020"}}}},
          {"load", {{"streams", 2}, {"prompt_tokens", 10}, {"output_tokens", {5, 6}}}}};
}

TEST(ClusterJson, LeastFileGetsDefaults) {
  const absl::StatusOr<SimSpec> spec = Parse(Least().dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->model.layers, 32u);
  EXPECT_DOUBLE_EQ(spec->model.bytes_per_weight, 34.0 / 32);
  EXPECT_EQ(spec->nodes.size(), 1u);
  EXPECT_EQ(spec->nodes[0].name, "node-1");
  EXPECT_EQ(spec->load.requests, 2u);
  EXPECT_EQ(spec->load.prompt_tokens.most, 10u);
  EXPECT_EQ(spec->load.output_tokens.least, 5u);
  EXPECT_EQ(spec->rules.context, 4096u);
  EXPECT_DOUBLE_EQ(spec->nodes[0].access.bytes_per_second, 940e6 / 8);
}

TEST(ClusterJson, TheExampleIsRight) {
  const auto text = ReadFile(EFEDLLM_SOURCE_DIR "/config/cluster-example.json", 1 << 20);
  ASSERT_TRUE(text.ok());
  const absl::StatusOr<SimSpec> spec = Parse(*text);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->nodes.size(), 24u);
  EXPECT_EQ(spec->pairs.size(), 4u * 3 * 2 + 2 * 2);
}

TEST(ClusterJson, GroupsAndOverridesExpand) {
  json file = Least();
  file["nodes"] = {{{"name", "x"}, {"count", 3}, {"preset", "office-2015"}, {"memory", "1.5GiB"}},
                   {{"name", "y"}, {"preset", "office-2015"}, {"link", {{"delay_ms", 7}}}}};
  file["links"] = {{{"from", "x"}, {"to", "coordinator"}, {"delay_ms", 3}, {"both_ways", false}},
                   {{"from", "x-2"}, {"to", "y"}, {"reachable", false}}};
  const absl::StatusOr<SimSpec> spec = Parse(file.dump());
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->nodes[2].name, "x-3");
  EXPECT_EQ(spec->nodes[2].profile.memory_bytes, uint64_t{3} << 29);
  EXPECT_DOUBLE_EQ(spec->nodes[3].access.delay_seconds, 0.007);
  ASSERT_EQ(spec->pairs.size(), 5u);
  EXPECT_EQ(spec->pairs[0].to, 4u);  // the coordinator
  EXPECT_FALSE(spec->pairs[4].reachable);
}

TEST(ClusterJson, LayersMayBeDealtByHandOrEvenly) {
  json file = Least();
  file["nodes"][0]["count"] = 5;
  file["scheduler"] = {{"layout", "even"}};
  const std::vector<uint32_t> even = {6, 6, 7, 6, 7};
  EXPECT_EQ(Parse(file.dump())->rules.stage_layers, even);
  file["scheduler"]["layout"] = {30, 2};
  EXPECT_EQ(Parse(file.dump())->rules.stage_layers.size(), 2u);
}

TEST(ClusterJson, SaysWhichKeyIsWrongAndWhy) {
  struct Case {
    const char* pointer;
    json value;
    const char* message;
  };
  const Case cases[] = {
      {"/nodes/0/count", 0, "nodes[0].count: must be a whole number from 1 to 1024"},
      {"/nodes/0/count", 2000, "nodes[0].count"},
      {"/nodes/0/preset", "cray", "nodes[0].preset: must be one of office-2015"},
      {"/nodes/0/memory", "much", "nodes[0].memory: must be a size"},
      {"/nodes/0/memory", -1, "nodes[0].memory"},
      {"/nodes/0/threads", 1.5, "nodes[0].threads"},
      {"/nodes/0/read_bytes_per_second", 0, "nodes[0].read_bytes_per_second"},
      {"/nodes/0/read_bytes_per_second", "fast", "nodes[0].read_bytes_per_second"},
      {"/nodes/0/speed", 1, "nodes[0].speed: is not known here; there are"},
      {"/nodes/0/medium", "air", "nodes[0].medium: is not named"},
      {"/nodes/0/host", "box", "nodes[0].host: is not named"},
      {"/nodes/0/times", {{1, 2}}, "at least two"},
      {"/nodes/0/times", {{2, 2}, {1, 3}}, "more rows each time"},
      {"/nodes/0/times", {{1, 2}, {2, -3}}, "nodes[0].times"},
      {"/nodes/0/link", {{"delay_ms", -1}}, "nodes[0].link.delay_ms"},
      {"/nodes/0/name", "coordinator", "nodes[0].name: stands twice"},
      {"/nodes", json::array(), "nodes: must name at least one node"},
      {"/nodes", 5, "nodes: must be an array"},
      {"/nodes/0", 5, "nodes[0]: must be an object"},
      {"/network", {{"preset", "tin can"}}, "network.preset: must be one of loopback"},
      {"/network", {{"megabits_per_second", 0}}, "network.megabits_per_second"},
      {"/links", {{{"from", "a"}, {"to", "b"}}}, "links[0].from: is no node's name"},
      {"/model/weights", "q9", "model.weights: must be one of"},
      {"/model", {{"layers", 2}}, "model.d_model: is missing"},
      {"/model", {{"gguf", "there.gguf"}}, "no file there.gguf"},
      {"/model/kv_type", "f64", "model.kv_type: must be f32, f16 or q8_0"},
      {"/load/streams", 0, "load.streams"},
      {"/load/prompt_tokens", json::array({5, 2}), "load.prompt_tokens"},
      {"/load/output_tokens", 1 << 21, "load.output_tokens"},
      {"/load/requests", 100001, "load.requests"},
      {"/load/arrivals_per_second", -1, "load.arrivals_per_second"},
      {"/scheduler", {{"context", 10}}, "scheduler.context: is less than a prompt and its output"},
      {"/scheduler",
       {{"layout", "ring"}},
       "scheduler.layout: must be auto, chain, replicas, even, or the layers"},
      {"/scheduler", {{"layout", {31}}}, "scheduler.layout: must have 32 layers in all"},
      {"/scheduler", {{"layout", {16, 16}}}, "scheduler.layout: must be an array of at most 1"},
      {"/coordinator", {{"threads", 1}}, "coordinator.memory: is missing"},
      {"/seed", -4, "seed"},
      {"/sed", 4, "sed: is not known here"},
  };
  for (const Case& test : cases) {
    json file = Least();
    file[json::json_pointer(test.pointer)] = test.value;
    const absl::Status status = Parse(file.dump()).status();
    EXPECT_FALSE(status.ok()) << file.dump();
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message)) << file.dump();
  }
  for (const char* key : {"model", "coordinator", "nodes", "load"}) {
    json file = Least();
    file.erase(key);
    EXPECT_THAT(std::string(Parse(file.dump()).status().message()), HasSubstr(key));
  }
}

TEST(ClusterJson, RefusesWhatIsNoJsonOrMeantToHurt) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("{\"a\":1,\"a\":2}"),
        std::string("{\"seed\":NaN}"), std::string("{\"x\":1e999}"), std::string("\xff\xfe"),
        "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}",
        std::string(9 << 20, ' ')}) {
    const absl::Status status = Parse(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 20);
    EXPECT_LT(status.message().size(), 400u);
  }
}

TEST(ClusterJson, BoundsWhatCountsMultiplyTo) {
  json file = Least();
  file["nodes"] = {{{"name", "x"}, {"count", 1000}, {"preset", "office-2015"}},
                   {{"name", "y"}, {"count", 1000}, {"preset", "office-2015"}}};
  EXPECT_THAT(std::string(Parse(file.dump()).status().message()), HasSubstr("more than 1024"));
  file["nodes"] = {{{"name", "x"}, {"count", 1000}, {"preset", "office-2015"}}};
  file["links"] = {{{"from", "x"}, {"to", "x"}}};
  EXPECT_THAT(std::string(Parse(file.dump()).status().message()), HasSubstr("pairs"));
  file.erase("links");
  file["load"]["requests"] = 100000;
  file["load"]["output_tokens"] = 1000;
  EXPECT_THAT(std::string(Parse(file.dump()).status().message()), HasSubstr("requests"));
}

}  // namespace
}  // namespace efedllm
