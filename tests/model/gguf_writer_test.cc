#include "model/gguf_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>

#include "common/file.h"
#include "model/gguf_builder.h"
#include "model/temp_dir.h"

namespace efedllm {
namespace {

// Writes all of file to path, tensor data in pieces of so many bytes.
absl::Status Copy(const ModelFile& file, const std::string& path, size_t piece) {
  std::vector<GgufTensor> tensors;
  for (const ModelTensor& tensor : file.tensors()) {
    tensors.push_back(
        {std::string(tensor.name), tensor.gguf_type, tensor.shape, tensor.size_bytes()});
  }
  auto writer = GgufWriter::Create(path, MetadataOf(file), tensors);
  if (!writer.ok()) return writer.status();
  for (const ModelTensor& tensor : file.tensors()) {
    for (size_t first = 0; first < tensor.bytes.size(); first += piece) {
      const absl::Status status = (*writer)->Append(tensor.bytes.subspan(first, piece));
      if (!status.ok()) return status;
    }
  }
  return (*writer)->Finish();
}

TEST(GgufWriter, CopiesAModel) {
  TempDir folder;
  GgufBuilder gguf = TinyLlama().Builder();
  gguf.Bool("tokenizer.ggml.add_bos_token", true).Scalar<int32_t>("x.negative", 5, -7);
  gguf.Scalar<uint64_t>("x.large", 10, uint64_t{1} << 40).Scalar<double>("x.fine", 12, 0.1);
  gguf.Strings("tokenizer.ggml.tokens", {"a", "", "\xf0\x9f\xa6\x8a"});
  gguf.Array<int32_t>("tokenizer.ggml.token_type", 5, {1, 2, -3});
  gguf.Array<float>("tokenizer.ggml.scores", 6, {0.5f, -1e30f});
  gguf.Array<uint8_t>("x.flags", 7, {1, 0, 1}).Uint("split.count", 1).Uint("general.alignment", 32);
  const std::string bytes = gguf.Build();
  const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
  const std::string path = folder.path() + "/copy.gguf";
  for (const size_t piece : {7u, 1u << 20}) {
    ASSERT_TRUE(Copy(file, path, piece).ok());
    const auto copy = ModelFile::Open(path);
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_EQ(copy->values().size(), file.values().size() - 2);
    EXPECT_EQ(copy->FindValue("split.count"), nullptr);
    EXPECT_EQ(*copy->GetString("general.architecture"), "llama");
    EXPECT_TRUE(*copy->GetBool("tokenizer.ggml.add_bos_token"));
    EXPECT_EQ(std::get<int64_t>(*copy->FindValue("x.negative")), -7);
    EXPECT_EQ(*copy->GetUint("x.large"), uint64_t{1} << 40);
    EXPECT_EQ(*copy->GetFloat("x.fine"), 0.1);
    EXPECT_EQ(copy->GetStrings("tokenizer.ggml.tokens")->at(2), "\xf0\x9f\xa6\x8a");
    EXPECT_EQ(*copy->GetNumbers("tokenizer.ggml.token_type"), (std::vector<double>{1, 2, -3}));
    EXPECT_EQ(*copy->GetNumbers("tokenizer.ggml.scores"),
              (std::vector<double>{0.5, double{-1e30f}}));
    EXPECT_EQ(*copy->GetNumbers("x.flags"), (std::vector<double>{1, 0, 1}));
    ASSERT_EQ(copy->tensors().size(), file.tensors().size());
    for (size_t i = 0; i < file.tensors().size(); ++i) {
      EXPECT_EQ(copy->tensors()[i].name, file.tensors()[i].name);
      EXPECT_EQ(copy->tensors()[i].shape, file.tensors()[i].shape);
      EXPECT_EQ(copy->tensors()[i].bytes, file.tensors()[i].bytes);
    }
  }
}

TEST(GgufWriter, WritesNumbersAsOthersExpectThem) {
  // llama.cpp refuses a block_count that is not an uint32.
  const std::string header = GgufHeader({{"a", uint64_t{5}}, {"b", int64_t{5}}, {"c", 0.5}}, {});
  EXPECT_EQ(header.substr(24 + 9, 4), std::string("\4\0\0\0", 4));
  EXPECT_EQ(header.substr(24 + 17 + 9, 4), std::string("\5\0\0\0", 4));
  EXPECT_EQ(header.substr(24 + 34 + 9, 4), std::string("\6\0\0\0", 4));
}

TEST(GgufWriter, SaysHowLargeAFileWillBe) {
  TempDir folder;
  const std::vector<GgufTensor> tensors = {{"a", 0, {3}, 12}, {"b", 0, {16, 4}, 256}};
  const GgufMetadata metadata = {{"general.architecture", absl::string_view("llama")}};
  const std::string path = folder.path() + "/model.gguf";
  auto writer = GgufWriter::Create(path, metadata, tensors);
  ASSERT_TRUE(writer.ok());
  const std::vector<uint8_t> data(256, 1);
  ASSERT_TRUE((*writer)->Append(absl::MakeConstSpan(data).first(12)).ok());
  ASSERT_TRUE((*writer)->Append(data).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_EQ(std::filesystem::file_size(path), GgufFileBytes(metadata, tensors));
}

TEST(GgufWriter, LeavesNothingOfWhatIsNotFinished) {
  TempDir folder;
  {
    auto writer = GgufWriter::Create(folder.path() + "/model.gguf", {}, {{"a", 0, {3}, 12}});
    ASSERT_TRUE(writer.ok());
    EXPECT_FALSE(std::filesystem::is_empty(folder.path()));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_TRUE(
      absl::IsNotFound(GgufWriter::Create(folder.path() + "/none/model.gguf", {}, {}).status()));
}

}  // namespace
}  // namespace efedllm
