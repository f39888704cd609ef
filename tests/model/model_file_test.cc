#include "model/model_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/gguf_builder.h"
#include "model/model_config.h"
#include "model/temp_dir.h"

namespace efedllm {
namespace {

using ::testing::StartsWith;

TEST(ModelFile, IsCalledByItsFile) {
  EXPECT_EQ(ModelNameFromPath("/models/seedling-q8_0.gguf"), "seedling-q8_0");
  EXPECT_EQ(ModelNameFromPath("big-00002-of-00003.gguf"), "big");
  EXPECT_EQ(ModelNameFromPath("/models/SmolLM2-1.7B/"), "SmolLM2-1.7B");
  EXPECT_EQ(ModelNameFromPath("/models/SmolLM2-1.7B/."), "SmolLM2-1.7B");
  EXPECT_EQ(ModelNameFromPath("/hub/models--Qwen--Qwen3-8B/snapshots/0123abcd"), "Qwen3-8B");
  EXPECT_FALSE(ModelNameFromPath(".").empty());
}

TEST(ModelFile, ErrorsBeginWithThePathOnce) {
  TempDir dir;
  GgufBuilder gguf;
  gguf.String("general.architecture", "mamba");
  const std::string path = dir.Write("model.gguf", gguf.Build());
  const auto file = ModelFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status status = ModelConfigFromFile(*file).status();
  EXPECT_THAT(std::string(status.message()),
              StartsWith(path + ": architecture 'mamba' is not supported (supported: llama"));
  EXPECT_EQ(file->About(status), status);
  EXPECT_TRUE(file->About(absl::OkStatus()).ok());
}

TEST(ModelFile, BytesOfPiecesAreCopiedOnlyWhereTheyMeet) {
  const std::string a = "aaaa";
  const std::string b = "bbbb";
  ModelTensor tensor;
  tensor.pieces = {BytesOf(a), BytesOf(b)};
  EXPECT_EQ(tensor.size_bytes(), 8u);
  std::vector<uint8_t> scratch;
  EXPECT_EQ(tensor.Bytes(4, 4, scratch).data(), BytesOf(b).data());
  EXPECT_EQ(tensor.Bytes(1, 2, scratch).data(), BytesOf(a).data() + 1);
  EXPECT_TRUE(scratch.empty());
  EXPECT_EQ(tensor.Bytes(2, 5, scratch), BytesOf("aabbb"));
  EXPECT_TRUE(tensor.Bytes(8, 0, scratch).empty());
}

}  // namespace
}  // namespace efedllm
