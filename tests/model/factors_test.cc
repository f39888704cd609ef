#include "model/factors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "layers/packed_matrix.h"
#include "model/gguf_builder.h"
#include "model/local_model.h"
#include "model/tensor_hasher.h"
#include "model/weights.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kRank = 12;

// A tiny model whose attn_q of layer 0 and ffn_down of layer 1 have factors.
struct FactoredLlama {
  std::optional<uint32_t> version = 1;
  bool keep_weights = true;  // beside the factors
  uint64_t rank_a = kRank, rank_b = kRank;
  std::string leave_out;

  std::string Build() const {
    TinyLlama tiny;
    tiny.leave_out = keep_weights ? "" : "blk.0.attn_q.weight";
    GgufBuilder gguf = tiny.Builder();
    if (version) gguf.Uint(kFactorsVersionKey, *version);
    Random random(3);
    const auto factor = [&](const std::string& name, std::vector<uint64_t> shape) {
      if (name == leave_out) return;
      gguf.Tensor(name, 0, shape, RandomFloats(random, shape[0] * shape[1], 0.3f));
    };
    factor("blk.0.attn_q.factor_a", {32, rank_a});
    factor("blk.0.attn_q.factor_b", {rank_b, 32});
    factor("blk.1.ffn_down.factor_a", {64, kRank});
    factor("blk.1.ffn_down.factor_b", {kRank, 32});
    return gguf.Build();
  }
};

absl::Status Check(const FactoredLlama& model) {
  const std::string bytes = model.Build();
  const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
  return ModelConfigFromFile(file).status();
}

std::vector<float> Values(const ModelFile& file, const std::string& name) {
  const ModelTensor* tensor = file.FindTensor(name);
  std::vector<float> values(tensor->bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
  return values;
}

std::vector<float> LastLogits(const ModelFile& file, const std::vector<LayerRange>& stages = {}) {
  Compute compute = *Compute::Create(0, "auto");
  std::unique_ptr<LocalModel> model = *LocalModel::Create(file, {.stages = stages}, compute);
  std::vector<float> last;
  EXPECT_TRUE(model
                  ->Evaluate(std::vector<int32_t>{1, 5, 9, 3, 7}, 0,
                             [&](size_t, absl::Span<const float> logits) {
                               last.assign(logits.begin(), logits.end());
                             })
                  .ok());
  return last;
}

// The same model with its factors multiplied out.
std::string Dense(const ModelFile& file) {
  GgufBuilder gguf;
  gguf.String("general.architecture", "llama");
  for (const char* key : {"llama.block_count", "llama.context_length", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.attention.head_count",
                          "llama.attention.head_count_kv", "llama.rope.dimension_count"}) {
    gguf.Uint(key, static_cast<uint32_t>(*file.GetUint(key)));
  }
  gguf.Float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  for (const ModelTensor& tensor : file.tensors()) {
    const std::string name(tensor.name);
    if (name.find("factor") != std::string::npos) continue;
    std::vector<float> values = Values(file, name);
    const std::string part = name.substr(0, name.find(".weight"));
    if (file.FindTensor(FactorAName(part)) != nullptr) {
      const std::vector<float> a = Values(file, FactorAName(part));
      const std::vector<float> b = Values(file, FactorBName(part));
      const size_t cols = tensor.shape[0];
      for (size_t r = 0; r < tensor.shape[1]; ++r) {
        for (size_t c = 0; c < cols; ++c) {
          double sum = values[r * cols + c];
          for (size_t k = 0; k < kRank; ++k) sum += double{b[r * kRank + k]} * a[k * cols + c];
          values[r * cols + c] = static_cast<float>(sum);
        }
      }
    }
    gguf.Tensor(name, 0, tensor.shape,
                {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  return gguf.Build();
}

TEST(Factors, ComputeWhatTheirProductDoes) {
  const std::string bytes = FactoredLlama().Build();
  const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
  const std::string dense = Dense(file);
  const std::vector<float> ours = LastLogits(file);
  const std::vector<float> expected = LastLogits(*ModelFile::Parse(BytesOf(dense)));
  const std::string plain = TinyLlama().Build();
  const std::vector<float> without = LastLogits(*ModelFile::Parse(BytesOf(plain)));
  ASSERT_EQ(ours.size(), expected.size());
  double error = 0, effect = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    error = std::max<double>(error, std::fabs(ours[i] - expected[i]));
    effect = std::max<double>(effect, std::fabs(ours[i] - without[i]));
  }
  EXPECT_LT(error, 1e-4);
  EXPECT_GT(effect, 0.1);
}

TEST(Factors, GiveTheSameBitsInAnyStages) {
  const std::string bytes = FactoredLlama().Build();
  const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
  EXPECT_EQ(LastLogits(file), LastLogits(file, {{0, 1}, {1, 2}}));
}

TEST(Factors, MayStandInPlaceOfTheMatrix) {
  FactoredLlama model;
  model.keep_weights = false;
  EXPECT_TRUE(Check(model).ok()) << Check(model);
  const std::string bytes = model.Build();
  EXPECT_FALSE(LastLogits(*ModelFile::Parse(BytesOf(bytes))).empty());
}

TEST(Factors, TravelAndCountAsAnyTensor) {
  const std::string bytes = FactoredLlama().Build();
  const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
  const ModelConfig config = *ModelConfigFromFile(file);
  auto hasher = TensorHasher::Create(file, "");
  const std::vector<TensorSpec> specs = *(*hasher)->Hash(*StageTensors(config, file, {0, 1}));
  EXPECT_TRUE(ValidateStageTensors(config, {0, 1}, specs).ok());
  uint64_t plain = 0, factored = 0;
  for (const TensorSpec& spec : specs) {
    factored += PackedBytes(spec);
    if (spec.name.find("factor") == std::string::npos) plain += PackedBytes(spec);
  }
  EXPECT_EQ(factored - plain,
            PackedMatrixBytes(DType::kF32, kRank, 32) + PackedMatrixBytes(DType::kF32, 32, kRank));
  const uint64_t dense = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64);
  EXPECT_EQ(MatmulFlopsPerToken(config, specs), dense + 2 * 2 * 32 * kRank);
}

TEST(Factors, AreRefusedFromTheWireWhereTheyDontFit) {
  const std::string bytes = FactoredLlama().Build();
  const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
  const ModelConfig config = *ModelConfigFromFile(file);
  const std::vector<TensorSpec> good = *StageTensors(config, file, {0, 1});
  const auto refusal = [&](const std::string& name, auto change) {
    std::vector<TensorSpec> specs = good;
    const auto found = std::find_if(specs.begin(), specs.end(),
                                    [&](const TensorSpec& spec) { return spec.name == name; });
    change(specs, found);
    const absl::Status status = CheckStageShapes(config, {0, 1}, specs);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  const std::string a = "blk.0.attn_q.factor_a", b = "blk.0.attn_q.factor_b";
  EXPECT_THAT(refusal(a, [](auto& specs, auto i) { specs.erase(i); }), HasSubstr("do not need"));
  EXPECT_THAT(refusal(b, [](auto& specs, auto i) { specs.erase(i); }), HasSubstr("is missing"));
  EXPECT_THAT(refusal(a, [](auto&, auto i) { i->rows = uint64_t{1} << 24; }), HasSubstr("shape"));
  EXPECT_THAT(refusal(a, [](auto&, auto i) { i->rows = 1; }), HasSubstr("shape"));
  EXPECT_THAT(refusal(b, [](auto&, auto i) { i->cols = 16; }), HasSubstr("shape"));
  EXPECT_THAT(refusal("blk.0.attn_k.weight", [](auto& specs, auto i) { specs.erase(i); }),
              HasSubstr("is missing"));
}

TEST(Factors, AreRefusedInAFileWhereTheyDontFit) {
  FactoredLlama other_ranks;
  other_ranks.rank_b = kRank + 1;
  EXPECT_THAT(std::string(Check(other_ranks).message()), HasSubstr("attn_q.factor_b"));
  FactoredLlama too_high;
  too_high.rank_a = too_high.rank_b = 33;
  EXPECT_THAT(std::string(Check(too_high).message()), HasSubstr("attn_q.factor_a"));
  FactoredLlama half;
  half.leave_out = "blk.0.attn_q.factor_b";
  EXPECT_THAT(std::string(Check(half).message()), HasSubstr("lacks the tensor"));
  half.leave_out = "blk.0.attn_q.factor_a";
  EXPECT_TRUE(absl::IsUnimplemented(Check(half)));
}

TEST(Factors, OfAnotherVersionAreRefused) {
  FactoredLlama model;
  model.version = 2;
  EXPECT_TRUE(absl::IsUnimplemented(Check(model)));
  EXPECT_THAT(std::string(Check(model).message()), HasSubstr("version 2"));
  model.version.reset();
  EXPECT_TRUE(absl::IsUnimplemented(Check(model)));
  EXPECT_THAT(std::string(Check(model).message()), HasSubstr("efedllm.factors.version"));
}

}  // namespace
}  // namespace efedllm
