#include "model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "model/gguf_builder.h"
#include "model/model_file.h"

namespace efedllm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::StatusOr<ModelConfig> ConfigOf(const std::string& bytes) {
  const auto file = ModelFile::Parse(BytesOf(bytes));
  if (!file.ok()) return file.status();
  return ModelConfigFromFile(*file);
}

// The refusal of a model with something added to it.
absl::Status RefusalWith(const std::function<void(GgufBuilder&)>& add) {
  GgufBuilder gguf = TinyLlama().Builder();
  add(gguf);
  return ConfigOf(gguf.Build()).status();
}

TEST(ModelConfig, ReadsALlama) {
  const auto config = ConfigOf(TinyLlama().Build());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->name, "tiny");
  EXPECT_EQ(config->layers, 2u);
  EXPECT_EQ(config->d_model, 32u);
  EXPECT_EQ(config->heads, 4u);
  EXPECT_EQ(config->kv_heads, 2u);
  EXPECT_EQ(config->head_dim, 8u);
  EXPECT_EQ(config->d_ffn, 64u);
  EXPECT_EQ(config->vocab, 20u);
  EXPECT_EQ(config->context, 128u);
  EXPECT_EQ(config->rope.dims, 8u);
  EXPECT_EQ(config->rope.base, 10000.0f);
  EXPECT_EQ(config->norm_epsilon, 1e-5f);
}

TEST(ModelConfig, AcceptsTiedEmbeddingsAndRopeFactors) {
  TinyLlama model;
  model.tied = model.rope_freqs = true;
  EXPECT_TRUE(ConfigOf(model.Build()).ok());
}

TEST(ModelConfig, NamesAnUnknownArchitectureAndWhatIsSupported) {
  TinyLlama model;
  model.architecture = "mamba\n";
  const absl::Status status = ConfigOf(model.Build()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("architecture 'mamba\\n' is not supported"),
                    HasSubstr("supported: llama, qwen2")));
}

TEST(ModelConfig, NamesFeaturesThatItCannotRun) {
  const auto refusal = [](const std::function<void(GgufBuilder&)>& add) {
    const absl::Status status = RefusalWith(add);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refusal([](GgufBuilder& g) { g.String("llama.rope.scaling.type", "su"); }),
              HasSubstr("rope scaling 'su'"));
  EXPECT_THAT(refusal([](GgufBuilder& g) { g.Bool("llama.attention.causal", false); }),
              HasSubstr("not causal"));
  EXPECT_THAT(refusal([](GgufBuilder& g) { g.Uint("llama.attention.value_length", 16); }),
              HasSubstr("equally long"));
  EXPECT_THAT(refusal([](GgufBuilder& g) {
                g.Tensor("blk.2.attn_q.weight", 0, {32}, std::string(128, '\0'));
              }),
              HasSubstr("blk.2.attn_q.weight"));
}

TEST(ModelConfig, ReadsLinearRopeScalingInAllItsSpellings) {
  const auto scale = [](const char* type, const char* key, float factor) {
    GgufBuilder gguf = TinyLlama().Builder();
    if (*type != '\0') gguf.String("llama.rope.scaling.type", type);
    if (*key != '\0') gguf.Float(key, factor);
    const auto config = ConfigOf(gguf.Build());
    EXPECT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->rope.scaling == RopeScaling::kLinear, config->rope.factor != 1);
    return config->rope.factor;
  };
  EXPECT_EQ(scale("", "", 0), 1);
  EXPECT_EQ(scale("linear", "llama.rope.scaling.factor", 4), 4);
  EXPECT_EQ(scale("", "llama.rope.scaling.factor", 4), 4);
  EXPECT_EQ(scale("", "llama.rope.scale_linear", 2), 2);
  EXPECT_EQ(scale("linear", "llama.rope.scaling.factor", 0), 1);
  EXPECT_EQ(scale("none", "llama.rope.scaling.factor", 4), 1);
}

TEST(ModelConfig, ReadsYarnAndItsMagnitude) {
  GgufBuilder gguf = TinyLlama().Builder();
  gguf.String("llama.rope.scaling.type", "yarn").Float("llama.rope.scaling.factor", 4);
  gguf.Uint("llama.rope.scaling.original_context_length", 32);
  const auto config = ConfigOf(gguf.Build());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(config->rope.original_context, 32u);
  EXPECT_FLOAT_EQ(config->rope.magnitude, 1 + 0.1f * std::log(4.0f));
}

TEST(ModelConfig, AcceptsABiasOfAnyProjection) {
  GgufBuilder gguf = TinyLlama().Builder();
  gguf.Tensor("blk.1.attn_q.bias", 0, {32}, std::string(128, '\0'));
  EXPECT_TRUE(ConfigOf(gguf.Build()).ok());
}

TEST(ModelConfig, EveryThirdLayerOfThreeSeesPastItsWindow) {
  ModelConfig config;
  config.window = 5;
  EXPECT_TRUE(config.HasWindow(0) && config.HasWindow(2));
  config.window_period = 3;
  EXPECT_TRUE(config.HasWindow(0) && config.HasWindow(1) && config.HasWindow(3));
  EXPECT_FALSE(config.HasWindow(2) || config.HasWindow(5));
  config.window = 0;
  EXPECT_FALSE(config.HasWindow(0));
}

TEST(ModelConfig, NamesTheKeyThatIsMissing) {
  for (const char* key : {"llama.block_count", "llama.context_length", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.attention.head_count"}) {
    TinyLlama model;
    model.leave_out = key;
    const absl::Status status = ConfigOf(model.Build()).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  }
}

TEST(ModelConfig, NamesTheTensorThatIsMissing) {
  for (const char* name : {"token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight",
                           "blk.1.attn_output.weight", "blk.1.ffn_down.weight"}) {
    TinyLlama model;
    model.leave_out = name;
    const absl::Status status = ConfigOf(model.Build()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(ModelConfig, NamesATensorOfAnotherShapeWithBothShapes) {
  TinyLlama model;
  model.leave_out = "blk.1.ffn_up.weight";
  GgufBuilder gguf = model.Builder();
  gguf.Tensor("blk.1.ffn_up.weight", 0, {64, 32}, std::string(8192, '\0'));
  const absl::Status status = ConfigOf(gguf.Build()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("blk.1.ffn_up.weight"),
                                                   HasSubstr("[32, 64]"), HasSubstr("[64, 32]")));
}

TEST(ModelConfig, NamesATensorOfAnUnknownQuantization) {
  TinyLlama model;
  model.leave_out = "blk.0.attn_q.weight";
  for (const auto& [type, name] : {std::pair{17u, "IQ2_XS"}, std::pair{4711u, "4711"}}) {
    GgufBuilder gguf = model.Builder();
    gguf.Tensor("blk.0.attn_q.weight", type, {32, 32}, std::string(4096, '\0'));
    const absl::Status status = ConfigOf(gguf.Build()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("blk.0.attn_q.weight"), HasSubstr(name), HasSubstr("Q8_0")));
  }
}

TEST(ModelConfig, RefusesAbsurdNumbers) {
  const auto with = [](absl::string_view key, auto value) {
    TinyLlama model;
    model.leave_out = std::string(key);
    GgufBuilder gguf = model.Builder();
    gguf.Scalar(key, sizeof(value) == 8 ? 10 : 4, value);
    return ConfigOf(gguf.Build()).status();
  };
  for (const char* key : {"llama.block_count", "llama.context_length", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.attention.head_count",
                          "llama.attention.head_count_kv", "llama.rope.dimension_count"}) {
    EXPECT_FALSE(with(key, uint32_t{0}).ok()) << key;
    EXPECT_FALSE(with(key, ~uint32_t{0}).ok()) << key;
    EXPECT_FALSE(with(key, uint64_t{1} << 40).ok()) << key;
  }
  EXPECT_FALSE(with("llama.attention.head_count_kv", uint32_t{3}).ok());
  EXPECT_FALSE(with("llama.rope.dimension_count", uint32_t{7}).ok());
}

TEST(ModelConfig, RefusesFloatsThatAreNotFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), 0.0f, -1.0f}) {
    EXPECT_FALSE(RefusalWith([&](GgufBuilder& g) { g.Float("llama.rope.freq_base", bad); }).ok());
    if (bad == 0) continue;  // stands for none
    EXPECT_FALSE(
        RefusalWith([&](GgufBuilder& g) { g.Float("llama.rope.scaling.factor", bad); }).ok());
  }
}

TEST(ModelConfig, RefusesAVocabularyThatIsNotTheEmbeddings) {
  const absl::Status status = RefusalWith([](GgufBuilder& g) {
    g.Strings("tokenizer.ggml.tokens", {"a", "b"});
  });
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("20 rows"), HasSubstr("2 tokens")));
}

}  // namespace
}  // namespace efedllm
