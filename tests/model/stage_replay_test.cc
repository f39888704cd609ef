#include "model/stage_replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/bits.h"
#include "model/recorded_run.h"
#include "model/stage_world.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct World {
  World() : bytes(Model().Build()), file(*ModelFile::Parse(BytesOf(bytes))) {
    config = *ModelConfigFromFile(file);
    source = [this](LayerRange layers) {
      loads.push_back(layers.first);
      return LoadStageTensors(config, file, layers);
    };
  }

  static TinyLlama Model() {
    TinyLlama model;
    model.layers = 5;
    model.head_dim = 32;  // what Q8_0's blocks divide
    model.d_model = 4 * 32;
    model.rope_freqs = true;
    return model;
  }
  uint64_t LayerBytes() const {
    const std::vector<TensorSpec> specs = *StageTensors(config, file, {1, 2});
    uint64_t sum = 0;
    for (const TensorSpec& spec : specs) sum += PackedBytes(spec);
    return sum;
  }
  StageReplay Replay(uint64_t weight_bytes = 0, uint32_t step_rows = 32) {
    return {{config, weight_bytes, step_rows}, source, compute};
  }

  const std::string bytes;
  const ModelFile file;
  ModelConfig config;
  Compute compute = *Compute::Create(0, "auto");
  StageReplay::LayerSource source;
  std::vector<uint32_t> loads;
};

Matrix Stacked(const std::map<SequenceId, RecordedRun::Rows>& records, size_t cols,
               std::vector<RecordedRun::Row> RecordedRun::Rows::*which,
               std::vector<uint32_t>& lengths) {
  size_t count = 0;
  for (const auto& [id, rows] : records) count += (rows.*which).size();
  Matrix all(count, cols);
  lengths.clear();
  size_t row = 0;
  for (const auto& [id, rows] : records) {
    if ((rows.*which).empty()) continue;
    lengths.push_back(static_cast<uint32_t>((rows.*which).size()));
    for (const RecordedRun::Row& values : rows.*which) {
      std::copy(values.begin(), values.end(), all.row(row++));
    }
  }
  return all;
}

class StageReplayOf : public ::testing::TestWithParam<KvType> {};

TEST_P(StageReplayOf, AnyPartitionGivesTheBitsOfTheRun) {
  World world;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Random random(seed);
    RecordedRun run(world.config, world.source, GetParam(),
                    RandomStages(random, world.config.layers), world.compute);
    run.Live(random, 12);
    StageReplay replay = world.Replay(seed % 3 * world.LayerBytes(), seed % 2 == 0 ? 5 : 128);
    for (size_t stage = 0; stage < run.stages(); ++stage) {
      std::vector<uint32_t> lengths;
      const size_t d = world.config.d_model;
      Matrix rows = Stacked(run.records(stage), d, &RecordedRun::Rows::inputs, lengths);
      const Matrix expected = Stacked(run.records(stage), d, &RecordedRun::Rows::outputs, lengths);
      const absl::Status ran = replay.Run(run.layers(stage), GetParam(), lengths, rows.ref());
      ASSERT_TRUE(ran.ok()) << ran;
      EXPECT_EQ(BitsOf(rows.ref().span()), BitsOf(expected.ref().span()))
          << "seed " << seed << ", stage " << stage;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(KvTypes, StageReplayOf,
                         ::testing::Values(KvType::kF32, KvType::kF16, KvType::kQ8_0),
                         [](const auto& info) { return std::string(KvTypeName(info.param)); });

Matrix SomeRows(size_t rows, size_t cols) {
  Matrix hidden(rows, cols);
  Random random(3);
  for (float& value : hidden.ref().span()) value = static_cast<float>(random.Uniform() - 0.5);
  return hidden;
}

TEST(StageReplay, KeepsTheWeightsThatFitAndStreamsTheOthers) {
  World world;
  StageReplay replay = world.Replay(2 * world.LayerBytes());
  for (int i = 0; i < 2; ++i) {
    Matrix rows = SomeRows(9, world.config.d_model);
    ASSERT_TRUE(replay.Run({0, 4}, KvType::kF32, {9}, rows.ref()).ok());
  }
  EXPECT_THAT(world.loads, ElementsAre(0, 1, 2, 3, 2, 3));
  EXPECT_EQ(replay.kept_bytes(), 2 * world.LayerBytes());
}

TEST(StageReplay, ShowsTheRowsAfterEachLayer) {
  World world;
  StageReplay replay = world.Replay();
  std::map<uint32_t, std::vector<uint32_t>> seen;
  Matrix rows = SomeRows(7, world.config.d_model);
  ReplayHooks hooks;
  hooks.after_layer = [&](uint32_t layers, ConstMatrixRef at) { seen[layers] = BitsOf(at.span()); };
  ASSERT_TRUE(replay.Run({1, 4}, KvType::kF16, {4, 3}, rows.ref(), hooks).ok());
  for (uint32_t layers = 2; layers <= 4; ++layers) {
    Matrix prefix = SomeRows(7, world.config.d_model);
    ASSERT_TRUE(replay.Run({1, layers}, KvType::kF16, {4, 3}, prefix.ref()).ok());
    EXPECT_EQ(seen.at(layers), BitsOf(prefix.ref().span()));
  }
  EXPECT_EQ(seen.size(), 3u);
}

TEST(StageReplay, AsksBetweenStepsAndCanBeEnded) {
  World world;
  StageReplay replay = world.Replay(0, 4);
  std::vector<double> shares;
  ReplayHooks hooks;
  hooks.before_step = [&](double share) {
    shares.push_back(share);
    return shares.size() == 5 ? absl::CancelledError("enough") : absl::OkStatus();
  };
  Matrix rows = SomeRows(12, world.config.d_model);
  const absl::Status ran = replay.Run({0, 4}, KvType::kF32, {12}, rows.ref(), hooks);
  EXPECT_TRUE(absl::IsCancelled(ran)) << ran;
  EXPECT_EQ(shares.size(), 5u);
  EXPECT_TRUE(std::is_sorted(shares.begin(), shares.end()));
}

TEST(StageReplay, RefusesWhatIsNoStageAndRowsThatDoNotFit) {
  World world;
  StageReplay replay = world.Replay();
  Matrix rows = SomeRows(4, world.config.d_model);
  const auto refusal = [&](LayerRange layers, std::vector<uint32_t> lengths) {
    const absl::Status status = replay.Run(layers, KvType::kF32, lengths, rows.ref());
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refusal({4, 6}, {4}), HasSubstr("layers [4, 6)"));
  refusal({2, 2}, {4});
  EXPECT_THAT(refusal({0, 1}, {3}), HasSubstr("3 positions"));
  refusal({0, 1}, {4, 0});
  refusal({0, 1}, {0xffffffff, 5});
  rows.row(2)[7] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(absl::IsDataLoss(replay.Run({0, 1}, KvType::kF32, {4}, rows.ref())));
}

}  // namespace
}  // namespace efedllm
