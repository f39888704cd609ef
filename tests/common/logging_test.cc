#include "common/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <string>

namespace efedllm {
namespace {

TEST(Logging, AnUnknownLevelIsRefusedWithTheKnownOnes) {
  const absl::Status status = InitLogging("loud", false);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("'loud'"), testing::HasSubstr("warn")));
}

std::string LogOf(const char* level, bool json, const std::string& message) {
  testing::internal::CaptureStderr();
  EXPECT_TRUE(InitLogging(level, json).ok());
  spdlog::info(message);
  spdlog::error("an error");
  spdlog::default_logger()->flush();
  spdlog::drop_all();
  return testing::internal::GetCapturedStderr();
}

TEST(Logging, AJsonLineIsAJsonObjectWhateverTheMessage) {
  const std::string message = "quote \" backslash \\ newline \n tab \t and ü";
  const std::string log = LogOf("info", true, message);
  ASSERT_EQ(std::count(log.begin(), log.end(), '\n'), 2) << log;
  const auto line = nlohmann::json::parse(log.substr(0, log.find('\n')), nullptr, false);
  ASSERT_FALSE(line.is_discarded()) << log;
  EXPECT_EQ(line["message"], message);
  EXPECT_EQ(line["level"], "info");
  EXPECT_TRUE(line["thread"].is_number());
}

TEST(Logging, WhatIsBelowTheLevelIsLeftOut) {
  const std::string log = LogOf("error", false, "chatter");
  EXPECT_THAT(log, testing::Not(testing::HasSubstr("chatter")));
  EXPECT_THAT(log, testing::HasSubstr("an error"));
}

TEST(Logging, PrintableEscapesControlsAndCuts) {
  EXPECT_EQ(Printable("plain"), "plain");
  EXPECT_EQ(Printable("a\nb\x1b[31m"), "a\\nb\\x1b[31m");
  EXPECT_EQ(Printable("ü"), "ü");
  EXPECT_EQ(Printable(std::string(10, 'x'), 4), "xxxx...");
}

}  // namespace
}  // namespace efedllm
