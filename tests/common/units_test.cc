#include "common/units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace efedllm {
namespace {

uint64_t Parsed(const char* text) {
  absl::StatusOr<uint64_t> bytes = ParseBytes(text);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return bytes.value_or(0);
}

TEST(Units, SizesAreReadInPowersOf1024) {
  EXPECT_EQ(Parsed("0"), 0u);
  EXPECT_EQ(Parsed("512"), 512u);
  EXPECT_EQ(Parsed("512B"), 512u);
  EXPECT_EQ(Parsed("1K"), 1024u);
  EXPECT_EQ(Parsed("1KB"), 1024u);
  EXPECT_EQ(Parsed("1KiB"), 1024u);
  EXPECT_EQ(Parsed("512MiB"), 512u << 20);
  EXPECT_EQ(Parsed("8G"), uint64_t{8} << 30);
  EXPECT_EQ(Parsed(" 1.5 GiB "), uint64_t{3} << 29);
  EXPECT_EQ(Parsed("2t"), uint64_t{2} << 40);
}

TEST(Units, WhatIsNoSizeIsRefusedWithAnExample) {
  for (const char* text : {"", " ", "G", "-1", "-1G", "nan", "inf", "1e300", "8X", "8GG", "eight",
                           "1 2", "9999999999999T"}) {
    absl::StatusOr<uint64_t> bytes = ParseBytes(text);
    ASSERT_FALSE(bytes.ok()) << "'" << text << "' gave " << *bytes;
    EXPECT_TRUE(absl::IsInvalidArgument(bytes.status()));
    EXPECT_THAT(std::string(bytes.status().message()), testing::HasSubstr("512MiB"));
  }
}

TEST(Units, SizesAreShownInTheLargestFittingUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{8} << 30), "8.0 GiB");
  EXPECT_EQ(FormatBytes(uint64_t{1536} << 20), "1.5 GiB");
  EXPECT_EQ(FormatBytes(UINT64_MAX), "16384.0 PiB");
}

}  // namespace
}  // namespace efedllm
