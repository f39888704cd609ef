// Clusters whose hops are compressed: texts hold within an epoch's plan, and bases come while it
// serves.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>

#include "absl/time/clock.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

const std::string kPrompt = "Once upon a time there was a fox named Milo.";
constexpr uint32_t kTokens = 200;

ClusterWorld::CoordinatorTweak With(const char* codec, size_t standby = 0) {
  return [=](CoordinatorOptions& options) {
    options.layout = Layout::kChain;
    options.standby = standby;
    options.codec = CodecRequest::FromName(codec).value();
  };
}

// Where the layers are cut.
std::vector<uint32_t> Boundaries(ClusterWorld& world) {
  std::vector<uint32_t> boundaries;
  for (const Member& member : world.coordinator().cluster_status().members) {
    const MemberStage* stage = member.stage();
    if (stage != nullptr && member.state() != MemberState::kGone)
      boundaries.push_back(stage->layers.last);
  }
  std::sort(boundaries.begin(), boundaries.end());
  return boundaries;
}

size_t BasesIn(const ClusterWorld& world) {
  size_t bases = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(world.dir())) {
    bases += file.path().extension() == ".basis" ? 1 : 0;
  }
  return bases;
}

// Every process computes the same from the same coded activations.
TEST(CodecCluster, AFixedCodecGivesOneTextOnOnePlan) {
  std::vector<int32_t> first;
  for (int run = 0; run < 2; ++run) {
    ClusterWorld world(kSeedlingPath, 2, With("int8"));
    world.Join();
    world.Join();
    ASSERT_TRUE(world.AwaitServing(2));
    const Generated generated = world.Generate(SeedlingTokens(kPrompt), kTokens);
    ASSERT_TRUE(generated.status.ok()) << generated.status;
    ASSERT_EQ(generated.tokens.size(), kTokens);
    if (run == 0) first = generated.tokens;
    EXPECT_EQ(generated.tokens, first);
  }
}

// What a stage kept is coded to the same bytes again when it is sent to the one that takes over.
TEST(CodecCluster, AFailoverToAStandbyChangesNoCodedText) {
  ClusterWorld world(kSeedlingPath, 3, With("int8", /*standby=*/1));
  std::vector<pid_t> workers;
  for (int i = 0; i < 3; ++i) workers.push_back(world.Spawn());
  ASSERT_TRUE(world.AwaitServing(2));
  const std::vector<uint32_t> boundaries = Boundaries(world);
  const Generated expected = world.Generate(SeedlingTokens(kPrompt), kTokens);
  ASSERT_TRUE(expected.status.ok()) << expected.status;
  EXPECT_EQ(world.Generate(SeedlingTokens(kPrompt), kTokens).tokens, expected.tokens);

  for (const pid_t worker : workers) {
    const auto generation = world.Submit(SeedlingTokens(kPrompt), kTokens);
    ASSERT_NE(generation, nullptr);
    std::vector<int32_t> tokens;
    while (tokens.size() < 20) {
      const auto event = generation->Next(absl::Seconds(30));
      ASSERT_TRUE(event.has_value());
      if (event->token) tokens.push_back(event->token->token);
    }
    world.Kill(worker, SIGKILL);
    const Generated rest = world.Collect(*generation);
    EXPECT_TRUE(rest.status.ok()) << rest.status;
    tokens.insert(tokens.end(), rest.tokens.begin(), rest.tokens.end());
    if (Boundaries(world) != boundaries) {
      GTEST_SKIP() << "a busy machine: by measured times the layers were cut elsewhere, where they "
                      "are coded to other values";
    }
    EXPECT_EQ(tokens, expected.tokens);
    workers.push_back(world.Spawn());
    ASSERT_TRUE(world.AwaitStatus([](const ClusterStatus& status) {
      size_t attached = 0;
      for (const Member& member : status.members) {
        attached += member.state() != MemberState::kGone ? 1 : 0;
      }
      return status.state == "serving" && attached == 3;
    }));
    if (workers.size() == 5) break;  // two of them are enough
  }
}

TEST(CodecCluster, ServesWhileItCalibratesAndThenFromTheBases) {
  ClusterWorld world(kSeedlingPath, 2, With("balanced"));
  world.Join();
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  const Epoch before = world.coordinator().cluster_status().epoch;
  const auto generation = world.Submit(SeedlingTokens(kPrompt), 1000);
  ASSERT_NE(generation, nullptr);
  ASSERT_TRUE(world.AwaitStatus(
      [&](const ClusterStatus& status) {
        return status.state == "serving" && status.epoch > before;
      },
      absl::Minutes(4)));
  EXPECT_EQ(BasesIn(world), 3u);  // in front of the stages, between them, behind them
  const Generated generated = world.Generate(SeedlingTokens(kPrompt), kTokens);
  EXPECT_TRUE(generated.status.ok()) << generated.status;
  EXPECT_EQ(generated.tokens.size(), kTokens);
  const Generated through = world.Collect(*generation);
  EXPECT_TRUE(through.status.ok()) << through.status;

  // They are on disk: the next start serves from them soon, and gives the same text then.
  world.RestartCoordinator();
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  std::vector<int32_t> tokens;
  do {
    ASSERT_TRUE(world.AwaitServing(2));
    tokens = world.Generate(SeedlingTokens(kPrompt), kTokens).tokens;
  } while (tokens != generated.tokens && absl::Now() < deadline);
  EXPECT_EQ(tokens, generated.tokens);
  EXPECT_EQ(BasesIn(world), 3u);
}

}  // namespace
}  // namespace efedllm
