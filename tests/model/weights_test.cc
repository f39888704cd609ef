#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <thread>

#include "model/gguf_builder.h"
#include "model/temp_dir.h"
#include "model/tensor_hasher.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

// A parsed model and its config.
struct World {
  explicit World(const TinyLlama& model = TinyLlama())
      : bytes(model.Build()),
        file(*ModelFile::Parse(BytesOf(bytes))),
        config(*ModelConfigFromFile(file)) {}

  std::vector<TensorSpec> Hashed(LayerRange layers) {
    auto hasher = TensorHasher::Create(file, "");
    return *(*hasher)->Hash(*StageTensors(config, file, layers));
  }

  const std::string bytes;
  const ModelFile file;
  const ModelConfig config;
};

TEST(Weights, ListsAStagesTensorsInOrderOfUse) {
  TinyLlama model;
  model.rope_freqs = true;
  World world(model);
  const auto specs = StageTensors(world.config, world.file, {1, 2});
  ASSERT_TRUE(specs.ok()) << specs.status();
  std::vector<std::string> names;
  for (const TensorSpec& spec : *specs) names.push_back(spec.name);
  EXPECT_THAT(names, ::testing::ElementsAre("rope_freqs.weight", "blk.1.attn_norm.weight",
                                            "blk.1.attn_q.weight", "blk.1.attn_k.weight",
                                            "blk.1.attn_v.weight", "blk.1.attn_output.weight",
                                            "blk.1.ffn_norm.weight", "blk.1.ffn_gate.weight",
                                            "blk.1.ffn_up.weight", "blk.1.ffn_down.weight"));
  EXPECT_EQ((*specs)[0].rows, 1u);
  EXPECT_EQ((*specs)[0].cols, 4u);
  EXPECT_EQ((*specs)[3].rows, 16u);
  EXPECT_EQ((*specs)[3].cols, 32u);
}

TEST(Weights, NamesANormThatIsDamaged) {
  for (const char* name : {"blk.1.ffn_norm.weight", "output_norm.weight"}) {
    std::string bytes = TinyLlama().Build();
    const uint8_t* norm = ModelFile::Parse(BytesOf(bytes))->FindTensor(name)->bytes.data();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(bytes.data() + (norm - BytesOf(bytes).data()) + 8, &nan, sizeof(nan));
    const auto config = ModelConfigFromFile(*ModelFile::Parse(BytesOf(bytes)));
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(name));
  }
}

TEST(Weights, RefusesLayersThatTheModelHasNot) {
  World world;
  EXPECT_FALSE(StageTensors(world.config, world.file, {1, 3}).ok());
  EXPECT_FALSE(StageTensors(world.config, world.file, {1, 1}).ok());
}

TEST(Weights, TheHeadIsTheEmbeddingWhereTheModelTiesThem) {
  TinyLlama model;
  EXPECT_EQ(HeadTensors(World(model).config, World(model).file)->weight.name, "output.weight");
  model.tied = true;
  EXPECT_EQ(HeadTensors(World(model).config, World(model).file)->weight.name, "token_embd.weight");
}

TEST(Weights, AcceptsItsOwnListInAnyOrder) {
  World world;
  std::vector<TensorSpec> specs = world.Hashed({0, 2});
  EXPECT_TRUE(ValidateStageTensors(world.config, {0, 2}, specs).ok());
  std::reverse(specs.begin(), specs.end());
  EXPECT_TRUE(ValidateStageTensors(world.config, {0, 2}, specs).ok());
}

TEST(Weights, RefusesAListFromTheWireThatDiffers) {
  World world;
  const std::vector<TensorSpec> good = world.Hashed({0, 1});
  const auto refusal = [&](auto change) {
    std::vector<TensorSpec> specs = good;
    change(specs);
    const absl::Status status = ValidateStageTensors(world.config, {0, 1}, specs);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  using Specs = std::vector<TensorSpec>;
  EXPECT_THAT(refusal([](Specs& s) { s.pop_back(); }), HasSubstr("ffn_down.weight is missing"));
  EXPECT_THAT(refusal([](Specs& s) { s.push_back(s[0]); }), HasSubstr("stands twice"));
  EXPECT_THAT(refusal([](Specs& s) { s[1].rows = 1ull << 60; }), HasSubstr("shape"));
  EXPECT_THAT(refusal([](Specs& s) { s[1].cols = 0; }), HasSubstr("shape"));
  EXPECT_THAT(refusal([](Specs& s) { s[0].dtype = DType::kF16; }), HasSubstr("must be F32"));
  EXPECT_THAT(refusal([](Specs& s) { s[1].dtype = DType::kQ6_K; }), HasSubstr("whole blocks"));
  EXPECT_THAT(refusal([](Specs& s) { s[1].chunks.clear(); }), HasSubstr("chunk digests"));
  EXPECT_THAT(refusal([](Specs& s) {
                s.push_back(s[0]);
                s.back().name = "blk.1.attn_norm.weight";
              }),
              HasSubstr("do not need"));
}

TEST(Weights, AnIdIsTheContent) {
  World world;
  const std::vector<TensorSpec> specs = world.Hashed({0, 2});
  EXPECT_EQ(specs[1].id(), World().Hashed({0, 2})[1].id());
  EXPECT_NE(specs[1].id(), specs[10].id());
  TensorSpec reshaped = specs[1];
  std::swap(reshaped.rows, reshaped.cols);
  reshaped.rows /= 2;
  reshaped.cols *= 2;
  EXPECT_NE(specs[1].id(), reshaped.id());
}

TEST(TensorHasher, HashesEachChunk) {
  GgufBuilder gguf;
  const std::string data = std::string(kChunkBytes, 'a') + std::string(4, 'b');
  gguf.Tensor("t", 0, {data.size() / 4}, data);
  const std::string bytes = gguf.Build();
  const auto file = ModelFile::Parse(BytesOf(bytes));
  auto hasher = TensorHasher::Create(*file, "");
  TensorSpec spec{"t", DType::kF32, 1, data.size() / 4, {}};
  const auto hashed = (*hasher)->Hash(spec);
  ASSERT_TRUE(hashed.ok());
  ASSERT_EQ(hashed->chunks.size(), 2u);
  EXPECT_EQ(hashed->chunks[0], Sha256(BytesOf(std::string(kChunkBytes, 'a'))));
  EXPECT_EQ(hashed->chunks[1], Sha256(BytesOf("bbbb")));
  spec.cols -= 1;
  EXPECT_EQ((*hasher)->Hash(spec).status().code(), absl::StatusCode::kInvalidArgument);
  spec.name = "u";
  EXPECT_EQ((*hasher)->Hash(spec).status().code(), absl::StatusCode::kNotFound);
}

TEST(TensorHasher, ServesManyThreads) {
  World world;
  TempDir dir;
  const ModelFile file = *ModelFile::Open(dir.Write("model.gguf", world.bytes));
  auto hasher = *TensorHasher::Create(file, dir.path());
  const auto specs = *StageTensors(world.config, file, {0, 2});
  std::vector<std::vector<TensorSpec>> hashed(4);
  std::vector<std::thread> threads;
  for (auto& result : hashed) threads.emplace_back([&] { result = *hasher->Hash(specs); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : hashed) EXPECT_EQ(result, world.Hashed({0, 2}));
}

TEST(TensorHasher, KeepsDigestsOverARestartAndDistrustsDamagedLines) {
  TempDir dir;
  const std::string path = dir.Write("model.gguf", TinyLlama().Build());
  const auto file = ModelFile::Open(path);
  ASSERT_TRUE(file.ok());
  const ModelConfig config = *ModelConfigFromFile(*file);
  const auto specs = *StageTensors(config, *file, {0, 2});
  const std::string state = dir.File("state");
  const auto hashed = *(*TensorHasher::Create(*file, state))->Hash(specs);

  ASSERT_FALSE(std::filesystem::is_empty(state));
  const std::string digests = std::filesystem::directory_iterator(state)->path().string();
  const auto size = std::filesystem::file_size(digests);
  EXPECT_EQ(*(*TensorHasher::Create(*file, state))->Hash(specs), hashed);
  EXPECT_EQ(std::filesystem::file_size(digests), size) << "it computed what it had";

  DamageFile(digests, 60);
  std::filesystem::resize_file(digests, size - 1);
  EXPECT_EQ(*(*TensorHasher::Create(*file, state))->Hash(specs), hashed);
}

TEST(TensorHasher, ForgetsDigestsOfAFileThatChanged) {
  TempDir dir;
  const std::string path = dir.Write("model.gguf", TinyLlama().Build());
  const auto file = ModelFile::Open(path);
  const auto specs = *StageTensors(*ModelConfigFromFile(*file), *file, {0, 1});
  const auto before = *(*TensorHasher::Create(*file, dir.path()))->Hash(specs);
  std::string changed = TinyLlama().Build();
  const ModelTensor* tensor = file->FindTensor("blk.0.attn_q.weight");
  changed[static_cast<size_t>(tensor->bytes.data() - file->parts()[0].header.data())] ^= 1;
  const std::string other = dir.Write("other.gguf", changed);
  const auto other_file = ModelFile::Open(other);
  const auto after = *(*TensorHasher::Create(*other_file, dir.path()))->Hash(specs);
  EXPECT_NE(before[1].chunks, after[1].chunks);
  EXPECT_EQ(before[2].chunks, after[2].chunks);
}

}  // namespace
}  // namespace efedllm
