#include "model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/random.h"
#include "model/gguf_builder.h"
#include "testing/hf_folder_writer.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string WithHeader(absl::string_view header, absl::string_view data = "") {
  const uint64_t size = header.size();
  return absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&size), sizeof(size)), header,
                      data);
}

std::string ErrorOf(const std::string& bytes) {
  const auto file = ReadSafetensors(BytesOf(bytes));
  if (file.ok()) return "";
  EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(file.status().message());
}

TEST(Safetensors, ReadsTensorsInTheOrderOfTheirBytes) {
  const std::string bytes =
      SafetensorsBytes({{"b", "F16", {2, 3}, "111122223333"}, {"a", "F32", {1}, "4444"}}, 3);
  const auto file = ReadSafetensors(BytesOf(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors.size(), 2u);
  EXPECT_EQ(file->tensors[0].name, "b");
  EXPECT_EQ(file->tensors[0].dtype, "F16");
  EXPECT_THAT(file->tensors[0].shape, ElementsAre(2, 3));
  EXPECT_EQ(file->tensors[1].bytes.data(), BytesOf(bytes).data() + bytes.size() - 4);
  EXPECT_EQ(file->header.size(), bytes.size() - 16);
}

TEST(Safetensors, KeepsTypesThatItDoesNotKnow) {
  const std::string bytes = SafetensorsBytes({{"q", "F4_E2M1", {7}, "1234"}});
  const auto file = ReadSafetensors(BytesOf(bytes));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors[0].dtype, "F4_E2M1");
}

TEST(Safetensors, SaysWhatIsWrong) {
  EXPECT_THAT(ErrorOf("short"), HasSubstr("shorter than 8 bytes"));
  EXPECT_THAT(ErrorOf(std::string(16, '\x7f')), HasSubstr("a header of"));
  EXPECT_THAT(ErrorOf(WithHeader("<html>")), HasSubstr("not JSON: it begins with \"<html>\""));
  EXPECT_THAT(ErrorOf(WithHeader("[]")), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOf(WithHeader(std::string(1000000, '['))), HasSubstr("nested 1000000 deep"));
  EXPECT_THAT(ErrorOf(WithHeader(R"({"a":{"dtype":"F32","shape":[1]}})", "1234")),
              HasSubstr("tensor a has no \"data_offsets\""));
  EXPECT_THAT(
      ErrorOf(WithHeader(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "1234")),
      HasSubstr("tensor a lies at [0, 8) of the data, which has 4 bytes"));
  EXPECT_THAT(
      ErrorOf(WithHeader(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234")),
      HasSubstr("tensor a has 4 bytes, but its shape needs 8"));
  EXPECT_THAT(ErrorOf(WithHeader(R"({"a":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}})")),
              HasSubstr("tensor a: its shape has a size that is not 1 or more"));
  EXPECT_THAT(ErrorOf(WithHeader(
                  R"({"a":{"dtype":"F16","shape":[4611686018427387904,4],"data_offsets":[0,0]}})")),
              HasSubstr("overflows"));
  EXPECT_THAT(
      ErrorOf(WithHeader(R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}})", "1234")),
      HasSubstr("begins at byte 2 of the data, not at 0"));
  EXPECT_THAT(
      ErrorOf(WithHeader(R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}})", "1234")),
      HasSubstr("the tensors take 2 bytes of 4"));
  EXPECT_THAT(ErrorOf(WithHeader(R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},)"
                                 R"("b":{"dtype":"F16","shape":[1],"data_offsets":[1,3]}})",
                                 "123")),
              HasSubstr("tensor b begins at byte 1 of the data, not at 2"));
}

TEST(Safetensors, SurvivesFlippedBits) {
  const std::string bytes =
      SafetensorsBytes({{"b", "F16", {2, 3}, "111122223333"}, {"a", "F32", {1}, "4444"}});
  Random random(1);
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = bytes;
    for (int flips = 0; flips < 3; ++flips) {
      damaged[random.Below(damaged.size())] ^= static_cast<char>(1u << random.Below(8));
    }
    const auto file = ReadSafetensors(BytesOf(damaged));
    if (!file.ok()) EXPECT_FALSE(file.status().message().empty());
  }
}

}  // namespace
}  // namespace efedllm
