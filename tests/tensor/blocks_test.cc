#include "tensor/blocks.h"

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace efedllm {
namespace {

std::vector<uint8_t> FromHex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

class ParityVectors : public testing::TestWithParam<const char*> {};

TEST_P(ParityVectors, DequantizeToTheSameBits) {
  const std::string path =
      std::string(EFEDLLM_SOURCE_DIR) + "/../shared/parity/quants/" + GetParam() + ".json";
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << "no " << path;
  const nlohmann::json vectors = nlohmann::json::parse(file);
  const DType dtype = DTypeFromGguf(vectors["type_id"].get<uint32_t>()).value();
  const auto check = [&](const nlohmann::json& item) {
    const std::vector<uint8_t> bytes = FromHex(item["bytes"].get<std::string>());
    const std::vector<float> want = item["dequant"].get<std::vector<float>>();
    std::vector<float> got(want.size());
    ASSERT_EQ(RowBytes(dtype, want.size()), bytes.size());
    DequantizeRow(dtype, bytes.data(), got.size(), got.data());
    EXPECT_EQ(got, want);
  };
  for (const auto& item : vectors["quantize"]) check(item);
  for (const auto& item : vectors["dequantize"]) check(item);
}

INSTANTIATE_TEST_SUITE_P(Blocks, ParityVectors,
                         testing::Values("f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1",
                                         "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq4_nl", "iq4_xs",
                                         "mxfp4"),
                         [](const auto& type) { return std::string(type.param); });

TEST(Dtype, RowBytesRefusesBrokenRowsAndOverflow) {
  EXPECT_EQ(RowBytes(DType::kQ8_0, 64), 68u);
  EXPECT_EQ(RowBytes(DType::kQ8_0, 33), std::nullopt);
  EXPECT_EQ(RowBytes(DType::kQ6_K, 128), std::nullopt);
  EXPECT_EQ(RowBytes(DType::kF32, uint64_t{1} << 63), std::nullopt);
}

}  // namespace
}  // namespace efedllm
