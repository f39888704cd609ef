// A model gives the same logits, bit for bit, whether it comes as one GGUF, in parts, or as a
// Hugging Face folder.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "model/temp_dir.h"
#include "parity/parity_pack.h"
#include "testing/hf_folder_writer.h"

namespace efedllm {
namespace {

class HfFolder : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (ParityDir().empty()) GTEST_SKIP() << "the parity pack is not here";
    path_ = absl::StrCat(ParityDir(), "/models/", GetParam());
    gguf_ = std::make_unique<LoadedModel>(path_ + ".gguf", 2, "auto");
  }

  // Longer than the windows, so that they matter.
  std::vector<int32_t> Prompt() const {
    const auto answers = ReadJson(path_ + ".json");
    return answers["cases"].back()["prompt"].get<std::vector<int32_t>>();
  }

  void Write(const HfFolderOptions& options) const {
    WriteHfFolder(gguf_->file, dir_.File("hf"), options);
    if (!absl::StrContains(GetParam(), "rope3")) return;
    nlohmann::json config = ReadJson(dir_.File("hf/config.json"));
    // What its rope_freqs.weight was made of.
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 8.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 64}};
    WriteText(dir_.File("hf/config.json"), config.dump());
  }

  std::string path_;
  std::unique_ptr<LoadedModel> gguf_;
  TempDir dir_;
};

TEST_P(HfFolder, GivesTheLogitsOfTheGguf) {
  Write({.shards = 3});
  LoadedModel folder(dir_.File("hf"), 2, "auto");
  const std::vector<int32_t> prompt = Prompt();
  const auto expected = gguf_->Logits(prompt);
  const auto logits = folder.Logits(prompt);
  ASSERT_EQ(logits.size(), expected.size());
  const bool gemma = absl::StartsWith(GetParam(), "gemma");
  for (size_t i = 0; i < logits.size(); ++i) {
    for (size_t j = 0; j < logits[i].size(); ++j) {
      // Norms lose a bit when 1 is taken off and added again.
      if (gemma) {
        ASSERT_NEAR(logits[i][j], expected[i][j], 2e-3) << i << " " << j;
      } else {
        ASSERT_EQ(logits[i][j], expected[i][j]) << i << " " << j;
      }
    }
  }
}

TEST_P(HfFolder, InF32GivesTheLogitsOfFloat64) {
  Write({.as_f32 = true});
  LoadedModel folder(dir_.File("hf"), 2, "auto");
  const auto answers = ReadJson(path_ + ".json");
  for (const auto& c : answers["cases"]) {
    const auto logits = folder.Logits(c["prompt"].get<std::vector<int32_t>>()).back();
    const auto expected = c["f64"]["last_logits"].get<std::vector<double>>();
    for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(logits[i], expected[i], 2e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, HfFolder,
    ::testing::Values("llama/llama-f16", "llama/llama-bf16", "llama-linear/llama-linear-f16",
                      "llama-yarn/llama-yarn-f16", "llama-rope3/llama-rope3-f16",
                      "mistral-tied/mistral-tied-f16", "mixtral/mixtral-f16", "qwen2/qwen2-f16",
                      "qwen3/qwen3-f16", "qwen3moe/qwen3moe-f16", "gemma2/gemma2-f16",
                      "gemma3/gemma3-f16", "phi3/phi3-f16"),
    [](const auto& info) {
      return absl::StrReplaceAll(info.param, {{"-", "_"}, {"/", "_"}});
    });

}  // namespace
}  // namespace efedllm
