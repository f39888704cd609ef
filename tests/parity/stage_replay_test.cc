// An audit's replay of a stage gives the bits of the run, for every architecture that the parity
// pack has, with any kernels.
#include "model/stage_replay.h"

#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <ostream>

#include "cluster/kv_rule.h"
#include "model/recorded_run.h"
#include "parity/parity_pack.h"

namespace efedllm {
namespace {

struct ReplayedModel {
  std::string file;  // of the bundled model, or in the parity pack if it has a slash
  KvType kv_type = KvType::kF32;

  std::string path() const {
    return file.find('/') == std::string::npos ? SeedlingPath(file) : ParityDir() + "/" + file;
  }
  friend std::ostream& operator<<(std::ostream& out, const ReplayedModel& model) {
    return out << model.file << ", " << std::string(KvTypeName(model.kv_type));
  }
};

class ReplayTest : public ::testing::TestWithParam<ReplayedModel> {};

// Positions of a sequence that came out of the replay with other bits.
int Different(const std::vector<RecordedRun::Row>& expected, ConstMatrixRef rows) {
  int different = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const bool same = std::equal(
        expected[i].begin(), expected[i].end(), rows.row(i),
        [](float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); });
    different += same ? 0 : 1;
  }
  return different;
}

TEST_P(ReplayTest, GivesTheBitsOfTheRun) {
  if (!std::filesystem::exists(GetParam().path())) {
    GTEST_SKIP() << GetParam().file << " is not here";
  }
  const ModelFile file = *ModelFile::Open(GetParam().path());
  const ModelConfig config = *ModelConfigFromFile(file);
  const KvType kv_type =
      CheckKvType(config, GetParam().kv_type).ok() ? GetParam().kv_type : KvType::kF32;
  Compute workers = *Compute::Create(2, "auto"), ours = *Compute::Create(0, "scalar");
  const auto source = [&](LayerRange layers) { return LoadStageTensors(config, file, layers); };
  Random random(11);
  RecordedRun run(config, source, kv_type, RandomStages(random, config.layers), workers);
  run.Live(random, 6);
  StageReplay replay({.config = config, .weight_bytes = 0, .step_rows = 24}, source, ours);
  for (size_t stage = 0; stage < run.stages(); ++stage) {
    for (const auto& [id, record] : run.records(stage)) {
      if (record.inputs.empty()) continue;
      const auto length = static_cast<uint32_t>(record.inputs.size());
      Matrix rows(length, config.d_model);
      for (uint32_t i = 0; i < length; ++i) {
        std::copy(record.inputs[i].begin(), record.inputs[i].end(), rows.row(i));
      }
      const absl::Status ran = replay.Run(run.layers(stage), kv_type, {length}, rows.ref());
      ASSERT_TRUE(ran.ok()) << ran;
      EXPECT_EQ(Different(record.outputs, rows.ref()), 0)
          << "stage " << stage << ", sequence " << id.v << " of " << length << " positions";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, ReplayTest,
    ::testing::Values(ReplayedModel{"seedling-q8_0.gguf", KvType::kF16},
                      ReplayedModel{"stories260K/stories260K.gguf"},
                      ReplayedModel{"models/llama/llama-q4_0.gguf", KvType::kQ8_0},
                      ReplayedModel{"models/llama-rope3/llama-rope3-f16.gguf"},
                      ReplayedModel{"models/qwen2/qwen2-f16.gguf"},
                      ReplayedModel{"models/qwen3/qwen3-f16.gguf", KvType::kF16},
                      ReplayedModel{"models/qwen3moe/qwen3moe-f16.gguf"},
                      ReplayedModel{"models/gemma2/gemma2-f16.gguf", KvType::kF16},
                      ReplayedModel{"models/gemma3/gemma3-f16.gguf", KvType::kQ8_0},
                      ReplayedModel{"models/phi3/phi3-f16.gguf"}));

}  // namespace
}  // namespace efedllm
