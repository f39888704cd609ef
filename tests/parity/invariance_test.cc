// Numerics are a contract: the same bits for any partition, thread count, chunking, batch and ISA.
// On the bundled model, so that these tests run everywhere; and on the parity pack where it is.
#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <map>
#include <ostream>

#include "common/random.h"
#include "parity/parity_pack.h"

namespace efedllm {
namespace {

using Logits = std::vector<std::vector<float>>;

std::vector<int32_t> RandomTokens(uint64_t seed, size_t n, uint32_t vocab) {
  Random random(seed);
  std::vector<int32_t> tokens = {1};
  while (tokens.size() < n) tokens.push_back(static_cast<int32_t>(random.Below(vocab)));
  return tokens;
}

// Where the bits differ, "" if nowhere.
std::string Difference(const Logits& a, const Logits& b) {
  if (a.size() != b.size()) return "another number of rows";
  for (size_t row = 0; row < a.size(); ++row) {
    if (a[row].size() != b[row].size()) return "another vocabulary";
    for (size_t i = 0; i < a[row].size(); ++i) {
      if (std::bit_cast<uint32_t>(a[row][i]) == std::bit_cast<uint32_t>(b[row][i])) continue;
      return "row " + std::to_string(row) + ", token " + std::to_string(i) + ": " +
             std::to_string(a[row][i]) + " and " + std::to_string(b[row][i]);
    }
  }
  return "";
}

struct Model {
  std::string file;  // of the bundled model, or in the parity pack if it has a slash

  std::string path() const {
    return file.find('/') == std::string::npos ? SeedlingPath(file) : ParityDir() + "/" + file;
  }
  friend std::ostream& operator<<(std::ostream& out, const Model& model) {
    return out << model.file;
  }
};

class InvarianceTest : public ::testing::TestWithParam<Model> {
 protected:
  static constexpr size_t kTokens = 150;  // three KV pages

  void SetUp() override {
    if (!std::filesystem::exists(GetParam().path())) {
      GTEST_SKIP() << GetParam().file << " is not here";
    }
    config_ = LoadedModel(GetParam().path(), 0, "auto").model->config();
    tokens_ = RandomTokens(1, kTokens, config_.vocab);
    reference_ = Reference(GetParam().path(), tokens_);
  }

  // The definition: scalar code, one thread, one stage, token by token. Slow, so once per model.
  static const Logits& Reference(const std::string& path, absl::Span<const int32_t> tokens) {
    static auto& known = *new std::map<std::string, Logits>();
    Logits& logits = known[path];
    if (logits.empty()) logits = LoadedModel(path, 0, "scalar").Logits(tokens, 1);
    return logits;
  }

  // The logits of a batch of sequences, fed together in steps of a few tokens each. A step without
  // spans happens too, and does nothing.
  static std::vector<Logits> Batched(LoadedModel& loaded,
                                     const std::vector<std::vector<int32_t>>& sequences) {
    std::vector<Logits> all(sequences.size());
    std::vector<uint32_t> done(sequences.size(), 0);
    Random random(5);
    while (true) {
      Step step;
      std::vector<int32_t> tokens;
      for (size_t s = 0; s < sequences.size(); ++s) {
        const auto left = static_cast<uint32_t>(sequences[s].size()) - done[s];
        const auto n =
            std::min(left, static_cast<uint32_t>(random.Below(2) == 0 ? 1 : random.Below(9)));
        if (n == 0) continue;
        step.spans.push_back({SequenceId{s + 100}, done[s], n});
        const auto first = sequences[s].begin() + done[s];
        tokens.insert(tokens.end(), first, first + n);
      }
      bool finished = true;
      for (size_t s = 0; s < sequences.size(); ++s) {
        finished = finished && done[s] == sequences[s].size();
      }
      if (finished) return all;
      Matrix logits(tokens.size(), loaded.model->config().vocab);
      const absl::Status status = loaded.model->Forward(step, tokens, logits.ref());
      EXPECT_TRUE(status.ok()) << status;
      size_t row = 0;
      for (const SequenceSpan& span : step.spans) {
        const size_t s = span.sequence.v - 100;
        for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
          all[s].emplace_back(logits.row(row), logits.row(row) + logits.cols());
        }
        done[s] += span.tokens;
      }
    }
  }

  ModelConfig config_;
  std::vector<int32_t> tokens_;
  Logits reference_;
};

TEST_P(InvarianceTest, KernelsThreadsAndChunksChangeNoBit) {
  const auto expect_same = [&](const char* kernels, int threads, uint32_t chunk) {
    LoadedModel loaded(GetParam().path(), threads, kernels);
    EXPECT_EQ(Difference(loaded.Logits(tokens_, chunk), reference_), "")
        << kernels << ", " << threads << " threads, chunk " << chunk;
  };
  expect_same("scalar", 2, 64);
  for (const int threads : {0, 1, 2, 3}) {
    for (const uint32_t chunk : {1u, 7u, 64u, 0u}) expect_same("auto", threads, chunk);
  }
}

TEST_P(InvarianceTest, PartitionsChangeNoBit) {
  const uint32_t n = config_.layers;
  Random random(3);
  for (uint32_t stages = 1; stages <= n; ++stages) {
    // Random cuts, one stage at least a layer long.
    std::vector<uint32_t> cuts;
    for (uint32_t i = 1; i < n; ++i) cuts.push_back(i);
    while (cuts.size() + 1 > stages) {
      cuts.erase(cuts.begin() + static_cast<std::ptrdiff_t>(random.Below(cuts.size())));
    }
    cuts.push_back(n);
    LocalModelOptions options;
    uint32_t first = 0;
    for (const uint32_t cut : cuts) {
      options.stages.push_back({first, cut});
      first = cut;
    }
    LoadedModel loaded(GetParam().path(), 2, "auto", options);
    EXPECT_EQ(Difference(loaded.Logits(tokens_, 40), reference_), "") << stages << " stages";
  }
}

TEST_P(InvarianceTest, BatchMatesChangeNoBit) {
  LocalModelOptions options;
  options.kv_tokens = 20 * 192;
  LoadedModel loaded(GetParam().path(), 2, "auto", options);
  for (const size_t mates : {0u, 1u, 2u, 5u, 15u}) {
    std::vector<std::vector<int32_t>> sequences = {tokens_};
    for (size_t i = 0; i < mates; ++i) {
      sequences.push_back(RandomTokens(i + 50, 20 + 7 * i, config_.vocab));
    }
    const std::vector<Logits> together = Batched(loaded, sequences);
    EXPECT_EQ(Difference(together[0], reference_), "") << mates << " mates";
    if (mates == 15) {
      EXPECT_EQ(Difference(together[15], loaded.Logits(sequences[15])), "") << "a mate, alone";
    }
    Step release;
    for (size_t s = 0; s < sequences.size(); ++s) release.trims.push_back({SequenceId{s + 100}, 0});
    ASSERT_TRUE(loaded.model->Forward(release, {}, {nullptr, 0, config_.vocab}).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Bundled, InvarianceTest,
                         ::testing::Values(Model{"seedling-f16.gguf"},
                                           Model{"seedling-q8_0.gguf"}));
INSTANTIATE_TEST_SUITE_P(Pack, InvarianceTest,
                         ::testing::Values(Model{"stories260K/stories260K.gguf"},
                                           Model{"models/llama/llama-q4_0.gguf"},
                                           Model{"models/llama/llama-bf16.gguf"},
                                           Model{"models/llama-rope3/llama-rope3-f16.gguf"},
                                           Model{"models/qwen3moe/qwen3moe-f16.gguf"},
                                           Model{"models/gemma2/gemma2-f16.gguf"},
                                           Model{"models/gemma3/gemma3-f16.gguf"},
                                           Model{"models/phi3/phi3-f16.gguf"}));

}  // namespace
}  // namespace efedllm
