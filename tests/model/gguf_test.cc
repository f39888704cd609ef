#include "model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/random.h"
#include "model/gguf_builder.h"

namespace efedllm {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The message with which the bytes are refused.
std::string ErrorOf(absl::string_view bytes) {
  const absl::StatusOr<ModelFile> file = ModelFile::Parse(BytesOf(bytes));
  if (file.ok()) return "";
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(file.status().message());
}

TEST(Gguf, ReadsEveryScalarType) {
  GgufBuilder gguf;
  gguf.Scalar<uint8_t>("u8", 0, 200).Scalar<int8_t>("i8", 1, -3).Scalar<uint16_t>("u16", 2, 60000);
  gguf.Scalar<int16_t>("i16", 3, -4).Scalar<int32_t>("i32", 5, 5);
  gguf.Scalar<uint64_t>("u64", 10, 1ull << 63).Scalar<int64_t>("i64", 11, -6);
  gguf.Scalar<double>("f64", 12, 0.25).Float("f32", 1.5f).Bool("bool", true).String("s", "text");
  const std::string bytes = gguf.Build();
  const auto file = ModelFile::Parse(BytesOf(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file->GetUint("u8"), 200u);
  EXPECT_EQ(*file->GetUint("u16"), 60000u);
  EXPECT_EQ(*file->GetUint("i32"), 5u);
  EXPECT_EQ(*file->GetUint("u64"), 1ull << 63);
  EXPECT_EQ(*file->GetFloat("i8"), -3);
  EXPECT_EQ(*file->GetFloat("f64"), 0.25);
  EXPECT_EQ(*file->GetFloat("f32"), 1.5);
  EXPECT_TRUE(*file->GetBool("bool"));
  EXPECT_EQ(*file->GetString("s"), "text");
  EXPECT_EQ(file->GetUint("i64").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file->GetUint("s").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file->GetUint("absent").status().code(), absl::StatusCode::kNotFound);
}

TEST(Gguf, ReadsArrays) {
  GgufBuilder gguf;
  gguf.Strings("words", {"a", "", "ccc"}).Array<int8_t>("small", 1, {-1, 2});
  gguf.Array<float>("floats", 6, {0.5f}).Array<uint8_t>("flags", 7, {1, 0}).Strings("none", {});
  const std::string bytes = gguf.Build();
  const auto file = ModelFile::Parse(BytesOf(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(*file->GetStrings("words"), ElementsAre("a", "", "ccc"));
  EXPECT_THAT(*file->GetNumbers("small"), ElementsAre(-1, 2));
  EXPECT_THAT(*file->GetNumbers("floats"), ElementsAre(0.5));
  EXPECT_THAT(*file->GetNumbers("flags"), ElementsAre(1, 0));
  EXPECT_TRUE(file->GetStrings("none")->empty());
  EXPECT_EQ(file->GetStrings("small").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(file->GetNumbers("words").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Gguf, ReadsTensorsOfVersions2And3) {
  for (const uint32_t version : {2u, 3u}) {
    GgufBuilder gguf;
    gguf.version = version;
    gguf.Tensor("a", 0, {3}, std::string(12, 'a')).Tensor("b", 8, {32, 2}, std::string(68, 'b'));
    gguf.Tensor("odd", 17, {256}, std::string(74, 'c'));
    const std::string bytes = gguf.Build();
    const auto file = ModelFile::Parse(BytesOf(bytes));
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_EQ(file->tensors().size(), 3u);
    const ModelTensor* b = file->FindTensor("b");
    ASSERT_NE(b, nullptr);
    EXPECT_THAT(b->shape, ElementsAre(32, 2));
    ASSERT_EQ(b->bytes.size(), 68u);
    EXPECT_EQ(b->bytes[0], 'b');
    EXPECT_EQ(b->bytes[67], 'b');
    EXPECT_TRUE(file->FindTensor("odd")->bytes.empty()) << "a type that can't be sized";
    EXPECT_EQ(file->FindTensor("c"), nullptr);
  }
}

TEST(Gguf, HonoursTheAlignmentOfTheFile) {
  GgufBuilder gguf;
  gguf.alignment = 256;
  gguf.Uint("general.alignment", 256).Tensor("a", 0, {1}, "aaaa").Tensor("b", 0, {1}, "bbbb");
  const std::string bytes = gguf.Build();
  const auto file = ModelFile::Parse(BytesOf(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->parts()[0].header.size() % 256, 0u);
  EXPECT_EQ(file->FindTensor("b")->bytes[0], 'b');
}

TEST(Gguf, RefusesAnAbsurdAlignment) {
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 31}) {
    GgufBuilder gguf;
    gguf.Uint("general.alignment", alignment);
    EXPECT_THAT(ErrorOf(gguf.Build()), HasSubstr("general.alignment"));
  }
}

TEST(Gguf, SaysWhatAFileIsThatIsNoGguf) {
  EXPECT_THAT(ErrorOf("<!DOCTYPE html><html>"), AllOf(HasSubstr("not a GGUF"), HasSubstr("<!DO")));
  EXPECT_THAT(ErrorOf(""), HasSubstr("truncated"));
  GgufBuilder gguf;
  gguf.version = 1;
  EXPECT_THAT(ErrorOf(gguf.Build()), AllOf(HasSubstr("version 1"), HasSubstr("convert")));
  gguf.version = 4;
  EXPECT_THAT(ErrorOf(gguf.Build()), HasSubstr("version 4"));
  gguf.version = 0x03000000;
  EXPECT_THAT(ErrorOf(gguf.Build()), HasSubstr("big-endian"));
}

TEST(Gguf, RefusesCountsThatTheFileCannotHold) {
  GgufBuilder tensors;
  tensors.extra_tensors = int64_t{1} << 60;
  EXPECT_THAT(ErrorOf(tensors.Build()), HasSubstr("tensors"));
  GgufBuilder values;
  values.extra_values = -1;
  EXPECT_THAT(ErrorOf(values.Build()), HasSubstr("metadata keys"));
  GgufBuilder one_more;
  one_more.extra_tensors = 1000;
  EXPECT_THAT(ErrorOf(one_more.Build()), HasSubstr("byte"));
}

TEST(Gguf, RefusesArraysAndStringsLongerThanTheFile) {
  for (const uint64_t count : {uint64_t{1} << 20, uint64_t{1} << 40, ~uint64_t{0}}) {
    for (const uint32_t type : {0u, 4u, 7u, 8u, 12u}) {
      std::string body;
      GgufBuilder::Put(body, type);
      GgufBuilder::Put(body, count);
      EXPECT_THAT(ErrorOf(GgufBuilder().Raw("k", 9, body).Build()), HasSubstr("elements"));
    }
    std::string length;
    GgufBuilder::Put(length, count);
    EXPECT_THAT(ErrorOf(GgufBuilder().Raw("k", 8, length).Build()), HasSubstr("truncated"));
    EXPECT_THAT(ErrorOf(GgufBuilder().Raw("k", 8, length).Build()), HasSubstr("download it again"));
  }
}

TEST(Gguf, RefusesNestedArraysAndUnknownTypes) {
  std::string body;
  GgufBuilder::Put<uint32_t>(body, 9);
  GgufBuilder::Put<uint64_t>(body, 1);
  EXPECT_THAT(ErrorOf(GgufBuilder().Raw("k", 9, body).Build()), HasSubstr("array of arrays"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Scalar<uint32_t>("k", 13, 1).Build()),
              AllOf(HasSubstr("metadata key k"), HasSubstr("unknown type 13")));
}

TEST(Gguf, RefusesDuplicates) {
  EXPECT_THAT(ErrorOf(GgufBuilder().Uint("k", 1).Uint("k", 2).Build()), HasSubstr("stands twice"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {1}, "aaaa").Tensor("t", 0, {1}, "bb").Build()),
              HasSubstr("tensor t stands twice"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Uint("", 1).Build()), HasSubstr("0 bytes"));
}

TEST(Gguf, RefusesAbsurdShapes) {
  const std::string data(64, 'x');
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {}, data).Build()), HasSubstr("dimensions"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {1, 1, 1, 1, 1}, data).Build()),
              HasSubstr("5 dimensions"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {4, 0}, data).Build()), HasSubstr("is 0"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {1ull << 40, 1ull << 40}, data).Build()),
              HasSubstr("overflows"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {1ull << 62}, data).Build()),
              HasSubstr("overflows"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 8, {33}, data).Build()),
              HasSubstr("whole blocks of Q8_0"));
}

TEST(Gguf, RefusesTensorDataOutsideOfTheFile) {
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {100}, "too short").Build()),
              AllOf(HasSubstr("truncated"), HasSubstr("tensor t")));
  EXPECT_THAT(ErrorOf(GgufBuilder().TensorAt("t", 0, {1}, 1ull << 50).Build()),
              HasSubstr("truncated"));
  EXPECT_THAT(ErrorOf(GgufBuilder().TensorAt("t", 0, {1}, ~0ull - 31).Build()),
              HasSubstr("truncated"));
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {1}, "aaaa").TensorAt("u", 0, {1}, 4).Build()),
              HasSubstr("multiple of 32"));
}

TEST(Gguf, RefusesOverlappingTensors) {
  const std::string data(128, 'x');
  EXPECT_THAT(ErrorOf(GgufBuilder().Tensor("t", 0, {32}, data).TensorAt("u", 0, {1}, 96).Build()),
              AllOf(HasSubstr("overlaps"), HasSubstr("tensor u"), HasSubstr(" t")));
}

TEST(Gguf, RefusesEveryTruncationOfAModel) {
  const std::string bytes = TinyLlama().Build();
  for (size_t size = 0; size < bytes.size(); size += size < 3000 ? 1 : 97) {
    // A copy of its own, so that a sanitizer sees a read beyond the end.
    const std::string cut = bytes.substr(0, size);
    EXPECT_FALSE(ModelFile::Parse(BytesOf(cut)).ok()) << size;
  }
}

TEST(Gguf, SurvivesFlippedBits) {
  const std::string bytes = TinyLlama().Build();
  const size_t header = ModelFile::Parse(BytesOf(bytes))->parts()[0].header.size();
  Random random(1);
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = bytes;
    for (int flips = 0; flips < 3; ++flips) {
      damaged[random.Below(header)] ^= static_cast<char>(1u << random.Below(8));
    }
    const auto file = ModelFile::Parse(BytesOf(damaged));
    if (!file.ok()) EXPECT_FALSE(file.status().message().empty());
  }
}

TEST(Gguf, OpenNamesTheFile) {
  const auto missing = ModelFile::Open("/nonexistent/model.gguf");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nonexistent/model.gguf"));
  const auto folder = ModelFile::Open("/tmp");
  EXPECT_THAT(std::string(folder.status().message()), HasSubstr("no config.json"));
}

}  // namespace
}  // namespace efedllm
