// Whole models give the same logits to the bit on every CPU: each has one SHA-256, written down
// here, over all of this machine's kernels, threads, chunks and batches. scripts/test-arm64.sh runs
// the same test on an emulated ARM.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "common/sha256.h"
#include "layers/layers_world.h"
#include "model/local_model.h"
#include "model/model_file.h"
#include "numerics/synthetic_model.h"

namespace efedllm {
namespace {

constexpr size_t kTokens = 70;  // two KV pages

struct Case {
  const char* name;
  const char* model;  // a file of models/seedling, or an architecture, "+factors" or not
  KvType kv_type;
  const char* sha256;  // of the logits of kTokens tokens, as little-endian f32

  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }
};

using Logits = std::vector<std::vector<float>>;

struct Loaded {
  // kernels: null for those that Compute would choose.
  Loaded(const ModelFile& file, KvType kv_type, int threads, const KernelTable* kernels)
      : compute(*Compute::Create(threads, "auto")) {
    if (kernels != nullptr) compute.kernels = kernels;
    LocalModelOptions options;
    options.kv_type = kv_type;
    options.kv_tokens = 65 * 64;
    model = *LocalModel::Create(file, options, compute);
  }

  Logits Run(const std::vector<int32_t>& tokens, uint32_t chunk) {
    Logits all;
    const absl::Status status =
        model->Evaluate(tokens, chunk, [&all](size_t, absl::Span<const float> logits) {
          all.emplace_back(logits.begin(), logits.end());
        });
    EXPECT_TRUE(status.ok()) << status;
    return all;
  }

  Compute compute;
  std::unique_ptr<LocalModel> model;
};

std::string HashOf(const Logits& logits) {
  std::vector<uint8_t> bytes;
  for (const std::vector<float>& row : logits) {
    const auto* from = reinterpret_cast<const uint8_t*>(row.data());
    bytes.insert(bytes.end(), from, from + row.size() * sizeof(float));
  }
  return ToHex(Sha256(bytes));
}

class ModelBits : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string model = GetParam().model;
    const size_t suffix = model.find("+factors");
    const bool factored = suffix != std::string::npos;
    if (factored) model.resize(suffix);
    if (FindArchitecture(model) != nullptr) {
      gguf_ = SyntheticModel::Build(model, factored);
      file_ = std::make_unique<ModelFile>(*ModelFile::Parse(BytesOf(gguf_)));
    } else {
      file_ = std::make_unique<ModelFile>(
          *ModelFile::Open(EFEDLLM_SOURCE_DIR "/models/seedling/" + model));
    }
    Random random(1);
    tokens_ = {1};
    while (tokens_.size() < kTokens) tokens_.push_back(static_cast<int32_t>(random.Below(90)));
  }

  Loaded Load(int threads, const KernelTable* kernels = nullptr) const {
    return Loaded(*file_, GetParam().kv_type, threads, kernels);
  }

  std::string gguf_;
  std::unique_ptr<ModelFile> file_;
  std::vector<int32_t> tokens_;
};

TEST_P(ModelBits, AreThoseOfEveryTableOfKernels) {
  for (const KernelTable* table : RunnableKernels()) {
    EXPECT_EQ(HashOf(Load(0, table).Run(tokens_, 0)), GetParam().sha256) << table->name;
  }
}

TEST_P(ModelBits, AreTheSameForAnyThreadsAndChunks) {
  const struct {
    int threads;
    uint32_t chunk;
  } all[] = {{1, 1}, {2, 7}, {3, 64}, {4, 0}};
  for (const auto& c : all) {
    EXPECT_EQ(HashOf(Load(c.threads).Run(tokens_, c.chunk)), GetParam().sha256)
        << c.threads << " threads, chunks of " << c.chunk;
  }
}

// A sequence among others that go on by one token each, as requests do that are served at once.
TEST_P(ModelBits, AreTheSameInAnyBatch) {
  constexpr uint32_t kSteps = 2;
  Loaded loaded = Load(2);
  const Logits alone = loaded.Run(tokens_, 0);
  ASSERT_EQ(HashOf(alone), GetParam().sha256);
  uint64_t id = 1000;
  for (const uint32_t batch : {1u, 2u, 3u, 5u, 8u, 16u, 33u, 64u}) {
    Step released;
    for (uint32_t position = 0; position < kSteps; ++position) {
      Step step;
      std::vector<int32_t> tokens;
      for (uint32_t s = 0; s < batch; ++s) {
        step.spans.push_back({SequenceId{id + s}, position, 1});
        tokens.push_back(s == batch / 2 ? tokens_[position] : static_cast<int32_t>(s + position));
      }
      Matrix logits(batch, loaded.model->config().vocab);
      ASSERT_TRUE(loaded.model->Forward(step, tokens, logits.ref()).ok());
      EXPECT_TRUE(SameBits({logits.row(batch / 2), logits.cols()}, alone[position]))
          << "batch of " << batch << ", position " << position;
    }
    for (uint32_t s = 0; s < batch; ++s) released.trims.push_back({SequenceId{id + s}, 0});
    ASSERT_TRUE(
        loaded.model->Forward(released, {}, {nullptr, 0, loaded.model->config().vocab}).ok());
    id += batch;
  }
}

// When a definition changes (docs/numerics.md), so do these; nothing else may change them.
INSTANTIATE_TEST_SUITE_P(
    Models, ModelBits,
    testing::Values(Case{"seedling_f16", "seedling-f16.gguf", KvType::kF32,
                         "6022c17c56a417c386b0b552729142894312a4fca8e67fbc026d0e2f93c10135"},
                    Case{"seedling_q8_0", "seedling-q8_0.gguf", KvType::kF16,
                         "710283aca0cd09b98730b80c0eff488ed0c893205c0e63cfad025e0c601b8fac"},
                    Case{"llama", "llama", KvType::kF32,
                         "3ad50e5e71dde64d0db8104d9ee131e1f3d9ff6c5555ad871e390c6ddeb3b84f"},
                    Case{"qwen3moe", "qwen3moe", KvType::kF16,
                         "a75a1ade554f1a0cc7bc5b0435caca61d87d8dc7cbb2ea3b010a385d3df57e5d"},
                    Case{"gemma2", "gemma2", KvType::kQ8_0,
                         "f7a3bc3b694934ca028eb22b7e86838a7423003b3d3e0ccdd1ab33b2d3e066b3"},
                    Case{"phi3", "phi3", KvType::kF32,
                         "a8deba163e7945846e079b84ea7b0884fbc3bcaa0baf6a6014e77cc1d9c24601"},
                    Case{"llama_factors", "llama+factors", KvType::kF32,
                         "05382bdd6192e4cfe3d05c908926d6e31ef39d67024f5ba63e8f7bb5f2ae771f"},
                    Case{"phi3_factors", "phi3+factors", KvType::kF16,
                         "c227b27d23a67236b811264c268b371eb195cc2381b5249d1269732a0af83572"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace efedllm
