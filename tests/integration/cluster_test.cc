// The whole path in one process: what the cluster says must be what one machine says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "integration/cluster_world.h"

namespace efedllm {
namespace {

const std::string kPrompt = "Tell me a story about a fox named Milo.";

// What the coordinator alone makes of the prompt.
const Generated& Alone() {
  static const auto& generated = *new Generated([] {
    ClusterWorld world(kSeedlingPath);
    EXPECT_TRUE(world.AwaitServing(0));
    return world.Generate(SeedlingTokens(kPrompt), 80);
  }());
  return generated;
}

TEST(Cluster, SaysTheSameOverAnyNumberOfWorkers) {
  EXPECT_EQ(Alone().tokens.size(), 80u);
  for (const size_t workers : {1, 2, 3}) {
    ClusterWorld world(kSeedlingPath, workers);
    for (size_t i = 0; i < workers; ++i) world.Join();
    ASSERT_TRUE(world.AwaitServing(workers));
    const Generated generated = world.Generate(SeedlingTokens(kPrompt), 80);
    EXPECT_TRUE(generated.status.ok()) << generated.status;
    EXPECT_EQ(generated.tokens, Alone().tokens) << workers << " workers";
  }
}

TEST(Cluster, ReproducesTheRecordedStory) {
  std::ifstream record(EFEDLLM_SOURCE_DIR "/../shared/parity/stories260K/stories260K.json");
  if (!record || !std::filesystem::exists(kStoriesPath)) GTEST_SKIP() << "no parity pack here";
  const auto greedy = nlohmann::json::parse(record).at("greedy");
  const auto prompt = greedy.at("prompt").get<std::vector<int32_t>>();
  const auto tokens = greedy.at("tokens").get<std::vector<int32_t>>();
  for (const size_t workers : {0, 1, 2, 3, 5}) {
    ClusterWorld world(kStoriesPath, workers);
    for (size_t i = 0; i < workers; ++i) world.Join();
    ASSERT_TRUE(world.AwaitServing(workers));
    EXPECT_EQ(world.Generate(prompt, static_cast<uint32_t>(tokens.size())).tokens, tokens)
        << workers << " workers";
  }
}

TEST(Cluster, RunsEveryArchitectureOverWorkers) {
  const std::string models = EFEDLLM_SOURCE_DIR "/../shared/parity/models/";
  if (!std::filesystem::exists(models)) GTEST_SKIP() << "no parity pack here";
  for (const char* name :
       {"gemma2", "gemma3", "llama-yarn", "mixtral", "phi3", "qwen2", "qwen3", "qwen3moe"}) {
    const std::string base = models + name + "/" + name + "-f16";
    std::ifstream record(base + ".json");
    const auto answers = nlohmann::json::parse(record);
    const auto& last = answers.at("cases").back();
    const size_t workers = answers.at("n_layer").get<size_t>() > 1 ? 2 : 1;
    ClusterWorld world(base + ".gguf", workers);
    for (size_t i = 0; i < workers; ++i) world.Join();
    ASSERT_TRUE(world.AwaitServing(workers)) << name;
    EXPECT_EQ(world.Generate(last.at("prompt").get<std::vector<int32_t>>(), 32).tokens,
              last.at("exact").at("greedy").get<std::vector<int32_t>>())
        << name;
  }
}

TEST(Cluster, KeepsKeysAndValuesAlikeOnAllNodes) {
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    const auto generate = [type](size_t workers) {
      ClusterWorld world(kSeedlingPath, workers,
                         [type](CoordinatorOptions& options) { options.kv_type = type; });
      for (size_t i = 0; i < workers; ++i) world.Join();
      EXPECT_TRUE(world.AwaitServing(workers));
      return world.Generate(SeedlingTokens(kPrompt), 80).tokens;
    };
    EXPECT_EQ(generate(2), generate(0)) << std::string(KvTypeName(type));
  }
}

TEST(Cluster, ServesSeveralRequestsAtOnce) {
  ClusterWorld world(kSeedlingPath, 2);
  world.Join();
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  std::vector<std::shared_ptr<Generation>> generations;
  for (int i = 0; i < 8; ++i) generations.push_back(world.Submit(SeedlingTokens(kPrompt), 80));
  for (const auto& generation : generations) {
    ASSERT_NE(generation, nullptr);
    EXPECT_EQ(world.Collect(*generation).tokens, Alone().tokens);
  }
}

TEST(Cluster, TakesWorkersThatJoinLater) {
  ClusterWorld world(kSeedlingPath);
  ASSERT_TRUE(world.AwaitServing(0));
  world.Join();
  ASSERT_TRUE(world.AwaitServing(1));
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  EXPECT_EQ(world.Generate(SeedlingTokens(kPrompt), 80).tokens, Alone().tokens);
}

TEST(Cluster, GoesOnWhenAWorkerLeavesInTheMiddle) {
  ClusterWorld world(kSeedlingPath, 3);
  for (int i = 0; i < 3; ++i) world.Join();
  ASSERT_TRUE(world.AwaitServing(3));
  const auto generation = world.Submit(SeedlingTokens(kPrompt), 80);
  ASSERT_NE(generation, nullptr);
  std::vector<int32_t> first;
  while (first.size() < 10) {
    const auto event = generation->Next(absl::Seconds(30));
    ASSERT_TRUE(event.has_value());
    if (event->token) first.push_back(event->token->token);
  }
  world.Leave(1);
  const Generated rest = world.Collect(*generation);
  EXPECT_TRUE(rest.status.ok()) << rest.status;
  first.insert(first.end(), rest.tokens.begin(), rest.tokens.end());
  EXPECT_EQ(first, Alone().tokens);
  EXPECT_TRUE(world.AwaitServing(2));
}

TEST(Cluster, ComputesAloneAgainWhenAllWorkersLeave) {
  ClusterWorld world(kSeedlingPath);
  world.Join();
  ASSERT_TRUE(world.AwaitServing(1));
  world.Leave(0);
  ASSERT_TRUE(world.AwaitServing(0));
  EXPECT_EQ(world.Generate(SeedlingTokens(kPrompt), 80).tokens, Alone().tokens);
}

TEST(Cluster, SaysWhyNothingServesWithoutWorkers) {
  ClusterWorld world(kSeedlingPath, 2);
  EXPECT_TRUE(world.AwaitReason("0 of 2"));
  world.Join();
  EXPECT_TRUE(world.AwaitReason("1 of 2"));
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  world.Leave(0);
  ASSERT_TRUE(world.AwaitServing(1));
  world.Leave(0);
  EXPECT_TRUE(world.AwaitReason("all workers are gone"));
}

TEST(Cluster, SaysHowMuchMemoryIsMissing) {
  const auto little = [](WorkerOptions& options) {
    options.memory_bytes = options.profile->memory_bytes = 65u << 20;
  };
  ClusterWorld world(kSeedlingPath, 2,
                     [](CoordinatorOptions& options) { options.own.memory_bytes = 1u << 20; });
  world.Join(little);
  world.Join(little);
  EXPECT_TRUE(world.AwaitReason("missing"));
  world.Join();
  EXPECT_TRUE(world.AwaitServing(1));
}

TEST(Cluster, LooksAgainAtAWorkerThatComesBackWithMoreMemory) {
  ClusterWorld world(kSeedlingPath, 1);
  const auto sized = [&](uint64_t bytes) {
    return [&world, bytes](WorkerOptions& options) {
      options.state_dir = world.dir() + "/the-worker";
      options.memory_bytes = options.profile->memory_bytes = bytes;
    };
  };
  world.Join(sized(1u << 20));
  EXPECT_TRUE(world.AwaitReason("missing"));
  world.Leave(0);
  world.Join(sized(1u << 30));
  EXPECT_TRUE(world.AwaitServing(1));
}

TEST(Cluster, SaysHowMuchMemoryIsMissingForComputingAlone) {
  ClusterWorld world(kSeedlingPath, 0,
                     [](CoordinatorOptions& options) { options.own.memory_bytes = 1u << 20; });
  EXPECT_TRUE(world.AwaitReason("missing"));
  EXPECT_TRUE(world.AwaitReason("start workers"));
  world.Join();
  EXPECT_TRUE(world.AwaitServing(1));
}

TEST(Cluster, WorkersComeBackToARestartedCoordinatorAndFetchNothing) {
  ClusterWorld world(kSeedlingPath, 2);
  world.Join();
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  const std::string token = world.coordinator().join_token();
  const Epoch before = world.coordinator().cluster_status().epoch;
  world.RestartCoordinator();
  ASSERT_TRUE(world.AwaitServing(2));
  EXPECT_EQ(world.coordinator().join_token(), token);
  const ClusterStatus status = world.coordinator().cluster_status();
  EXPECT_GT(status.epoch, before);
  for (const Member& member : status.members) EXPECT_EQ(member.bytes_fetched, 0u);
  EXPECT_EQ(world.Generate(SeedlingTokens(kPrompt), 80).tokens, Alone().tokens);
}

TEST(Cluster, RefusesASecondCoordinatorWithTheSameState) {
  ClusterWorld world(kSeedlingPath);
  CoordinatorOptions options;
  options.model = kSeedlingPath;
  options.state_dir = world.dir() + "/coordinator";
  options.own.threads = 1;
  const absl::Status status = Coordinator::Start(options, SystemClock()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("--state-dir"));
}

TEST(Cluster, DrainsBeforeItStops) {
  ClusterWorld world(kSeedlingPath, 1);
  world.Join();
  ASSERT_TRUE(world.AwaitServing(1));
  const auto generation = world.Submit(SeedlingTokens(kPrompt), 80);
  ASSERT_NE(generation, nullptr);
  EXPECT_TRUE(world.coordinator().Drain(absl::Seconds(30)));
  EXPECT_EQ(world.Collect(*generation).tokens, Alone().tokens);
}

}  // namespace
}  // namespace efedllm
