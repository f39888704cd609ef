#include "common/sha256.h"

#include <gtest/gtest.h>

#include <string>

namespace efedllm {
namespace {

std::string HexOf(const std::string& text) {
  return ToHex(Sha256({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
}

TEST(Sha256, GivesTheDigestsOfTheStandard) {
  EXPECT_EQ(HexOf(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(HexOf("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(HexOf(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace efedllm
