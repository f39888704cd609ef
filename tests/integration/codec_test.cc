// Clusters whose hops are compressed: one plan gives one text, and bases come while it serves.
#include <gtest/gtest.h>

#include "coordinator/boundary_calibration.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

const std::string kPrompt = "Once upon a time there was a fox named Milo.";
constexpr uint32_t kTokens = 200;

ClusterWorld::CoordinatorTweak With(const char* codec) {
  return [=](CoordinatorOptions& options) {
    options.layout = Layout::kChain;
    options.codec = CodecRequest::FromName(codec).value();
  };
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

// Bases of wherever two stages may meet, calibrated beforehand: in the background it would take as
// long as other tests leave it.
ClusterWorld::CoordinatorTweak WithBases(const char* codec) {
  return [=](CoordinatorOptions& options) {
    With(codec)(options);
    const absl::StatusOr<ModelFile> file = ModelFile::Open(kSeedlingPath);
    ASSERT_TRUE(file.ok()) << file.status();
    CalibrationOptions calibration;
    calibration.boundaries = {0, 3, 4, 5, 8};
    const auto bases =
        LoadOrCalibrate(*file, calibration, BasisStore(BasisFolder(options.state_dir)));
    ASSERT_TRUE(bases.ok()) << bases.status();
  };
}

TEST(CodecCluster, TurnsToTheBasesWhileItServes) {
  ClusterWorld world(kSeedlingPath, 2, WithBases("balanced"));
  world.Join();
  world.Join();
  ASSERT_TRUE(world.AwaitServing(2));
  const auto generation = world.Submit(SeedlingTokens(kPrompt), 1000);
  ASSERT_NE(generation, nullptr);
  // The first epoch asks for them; the next one, with the same layers, has them.
  ASSERT_TRUE(world.AwaitStatus([](const ClusterStatus& status) {
    return status.state == "serving" && status.epoch.v >= 2;
  }));
  const Generated generated = world.Generate(SeedlingTokens(kPrompt), kTokens);
  EXPECT_TRUE(generated.status.ok()) << generated.status;
  EXPECT_EQ(generated.tokens.size(), kTokens);
  const Generated through = world.Collect(*generation);
  EXPECT_TRUE(through.status.ok()) << through.status;
}

}  // namespace
}  // namespace efedllm
