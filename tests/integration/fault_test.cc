// Workers that vanish or hang in the middle of a sequence: the client must not notice.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>

#include "integration/cluster_world.h"

namespace efedllm {
namespace {

const std::string kPrompt = "Once upon a time there was a fox named Milo.";
constexpr uint32_t kTokens = 400;

const std::vector<int32_t>& Expected() {
  static const auto& tokens = *new std::vector<int32_t>([] {
    ClusterWorld world(kSeedlingPath);
    EXPECT_TRUE(world.AwaitServing(0));
    return world.Generate(SeedlingTokens(kPrompt), kTokens).tokens;
  }());
  return tokens;
}

// The sequence's tokens, with `fault` after some of them.
std::vector<int32_t> GenerateThrough(ClusterWorld& world, const std::function<void()>& fault) {
  const auto generation = world.Submit(SeedlingTokens(kPrompt), kTokens);
  if (generation == nullptr) return {};
  std::vector<int32_t> tokens;
  while (tokens.size() < 20) {
    const auto event = generation->Next(absl::Seconds(30));
    if (!event) break;
    if (event->token) tokens.push_back(event->token->token);
  }
  fault();
  const Generated rest = world.Collect(*generation);
  EXPECT_TRUE(rest.status.ok()) << rest.status;
  tokens.insert(tokens.end(), rest.tokens.begin(), rest.tokens.end());
  return tokens;
}

// The i-th of three worker processes; which stage it holds is decided by its key.
class Fault : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    for (size_t i = 0; i < 3; ++i) {
      workers_.push_back(world_.Spawn());
      ASSERT_TRUE(world_.AwaitServing(i + 1));
    }
  }

  // One chain of all three, however busy the machine was when they measured themselves.
  ClusterWorld world_{kSeedlingPath, 0,
                      [](CoordinatorOptions& options) { options.layout = Layout::kChain; }};
  std::vector<pid_t> workers_;
};

TEST_P(Fault, AKilledWorkerChangesNoText) {
  const auto kill = [this] { world_.Kill(workers_[static_cast<size_t>(GetParam())], SIGKILL); };
  EXPECT_EQ(GenerateThrough(world_, kill), Expected());
  EXPECT_TRUE(world_.AwaitServing(2));
}

TEST_P(Fault, AHangingWorkerChangesNoTextAndMayComeBack) {
  const pid_t worker = workers_[static_cast<size_t>(GetParam())];
  EXPECT_EQ(GenerateThrough(world_, [&] { world_.Kill(worker, SIGSTOP); }), Expected());
  EXPECT_TRUE(world_.AwaitServing(2));
  world_.Kill(worker, SIGCONT);
  EXPECT_TRUE(world_.AwaitServing(3));
  EXPECT_EQ(world_.Generate(SeedlingTokens(kPrompt), kTokens).tokens, Expected());
}

INSTANTIATE_TEST_SUITE_P(EachWorker, Fault, testing::Values(0, 1, 2));

TEST(FaultOfAll, ComputesAloneWhenEveryWorkerDies) {
  ClusterWorld world(kSeedlingPath);
  const pid_t worker = world.Spawn();
  ASSERT_TRUE(world.AwaitServing(1));
  const auto kill = [&] { world.Kill(worker, SIGKILL); };
  EXPECT_EQ(GenerateThrough(world, kill), Expected());
}

TEST(FaultOfAll, FailsClearlyWhenNobodyIsLeft) {
  ClusterWorld world(kSeedlingPath, 1, [](CoordinatorOptions& options) {
    options.scheduler.outage_patience = absl::Seconds(1);
  });
  const pid_t worker = world.Spawn();
  ASSERT_TRUE(world.AwaitServing(1));
  const auto generation = world.Submit(SeedlingTokens(kPrompt), kTokens);
  ASSERT_NE(generation, nullptr);
  world.Kill(worker, SIGKILL);
  const Generated generated = world.Collect(*generation);
  EXPECT_TRUE(absl::IsUnavailable(generated.status)) << generated.status;
}

}  // namespace
}  // namespace efedllm
