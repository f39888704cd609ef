#include "tensor/kv_type.h"

#include "gtest/gtest.h"

namespace efedllm {
namespace {

TEST(KvType, NamesAreUnderstoodBack) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
    EXPECT_EQ(KvTypeFromName(KvTypeName(type)), type);
  }
  EXPECT_EQ(KvTypeFromName("F16"), std::nullopt);
  EXPECT_EQ(KvTypeFromName("auto"), std::nullopt);
}

TEST(KvType, KnowsItsBytes) {
  EXPECT_EQ(KvBytes(KvType::kF32, 64), 256u);
  EXPECT_EQ(KvBytes(KvType::kF16, 64), 128u);
  EXPECT_EQ(KvBytes(KvType::kQ8_0, 64), 68u);
  EXPECT_EQ(KvBlockValues(KvType::kQ8_0), 32u);
}

}  // namespace
}  // namespace efedllm
