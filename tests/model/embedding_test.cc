#include "model/embedding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "model/bits.h"
#include "model/gguf_builder.h"
#include "model/local_model.h"
#include "model/temp_dir.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

struct World {
  explicit World(const TinyLlama& model = TinyLlama())
      : bytes(model.Build()),
        file(*ModelFile::Parse(BytesOf(bytes))),
        config(*ModelConfigFromFile(file)),
        compute(*Compute::Create(0, "auto")) {}

  const std::string bytes;
  const ModelFile file;
  const ModelConfig config;
  Compute compute;
};

TEST(Embedding, ReadsTheRowsOfItsTokens) {
  World world;
  const Embedding embedding = *Embedding::Create(world.config, world.file);
  Matrix out(3, 32);
  ASSERT_TRUE(embedding.Lookup({19, 0, 19}, out.ref()).ok());
  const auto* table = world.file.FindTensor("token_embd.weight")->bytes.data();
  for (const auto& [row, token] : {std::pair{0, 19}, std::pair{1, 0}, std::pair{2, 19}}) {
    std::vector<float> expected(32);
    std::memcpy(expected.data(), table + token * 128, 128);
    EXPECT_EQ(BitsOf({out.row(static_cast<size_t>(row)), 32}), BitsOf(expected));
  }
}

TEST(Embedding, RefusesTokensOutsideOfTheVocabulary) {
  World world;
  const Embedding embedding = *Embedding::Create(world.config, world.file);
  Matrix out(1, 32);
  for (const int32_t token : {-1, 20, 1 << 30}) {
    const absl::Status status = embedding.Lookup({token}, out.ref());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("vocabulary [0, 20)"));
  }
}

TEST(Embedding, NamesATokenWhoseRowIsDamaged) {
  std::string bytes = TinyLlama().Build();
  const auto config = ModelConfigFromFile(*ModelFile::Parse(BytesOf(bytes)));
  const uint8_t* table =
      ModelFile::Parse(BytesOf(bytes))->FindTensor("token_embd.weight")->bytes.data();
  const float infinity = std::numeric_limits<float>::infinity();
  std::memcpy(bytes.data() + (table - BytesOf(bytes).data()) + 7 * 128 + 4, &infinity, 4);
  const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
  const Embedding embedding = *Embedding::Create(*config, file);
  Matrix out(1, 32);
  EXPECT_TRUE(embedding.Lookup({6}, out.ref()).ok());
  const absl::Status status = embedding.Lookup({7}, out.ref());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("token 7"));
}

TEST(OutputHead, ATeamLoadsTheSameWeightsForTiedAndOwnHeads) {
  for (const bool tied : {false, true}) {
    TinyLlama model;
    model.tied = tied;
    World world(model);
    Compute team = *Compute::Create(3, "scalar");
    auto plain = *OutputHead::Create(world.config, world.file, world.compute);
    auto parallel = *OutputHead::Create(world.config, world.file, team);
    Matrix hidden(2, 32), a(2, 20), b(2, 20);
    for (size_t i = 0; i < 64; ++i) hidden.row(0)[i] = static_cast<float>(i) - 30;
    plain->Logits(hidden.ref(), a.ref());
    parallel->Logits(hidden.ref(), b.ref());
    EXPECT_EQ(BitsOf(a.ref().span()), BitsOf(b.ref().span()));
    EXPECT_NE(a.row(0)[0], a.row(1)[0]);
  }
}

TEST(LocalModel, RefusesStagesThatLeaveLayersOut) {
  World world;
  for (const std::vector<LayerRange>& stages :
       {std::vector<LayerRange>{{0, 1}}, {{1, 2}}, {{0, 1}, {0, 2}}, {{0, 2}, {2, 2}, {2, 3}}}) {
    LocalModelOptions options;
    options.stages = stages;
    EXPECT_FALSE(LocalModel::Create(world.file, options, world.compute).ok());
  }
}

TEST(LocalModel, RefusesMoreTokensThanTheContext) {
  World world;
  auto model = *LocalModel::Create(world.file, {}, world.compute);
  const std::vector<int32_t> tokens(129, 1);
  const auto visit = [](size_t, absl::Span<const float>) {};
  EXPECT_THAT(std::string(model->Evaluate(tokens, 0, visit).message()),
              HasSubstr("context is 128"));
  EXPECT_TRUE(model->Evaluate(absl::MakeConstSpan(tokens).first(128), 50, visit).ok());
  EXPECT_TRUE(model->Evaluate({}, 0, visit).ok());
}

TEST(ArgMax, TakesTheLowerOfEquals) {
  EXPECT_EQ(ArgMax({1.0f, 3.0f, 3.0f, 2.0f}), 1u);
  EXPECT_EQ(ArgMax({-1.0f}), 0u);
}

}  // namespace
}  // namespace efedllm
