#include "cluster/kv_rule.h"

#include <gtest/gtest.h>

namespace efedllm {
namespace {

ModelConfig Shape(uint32_t layers, uint32_t kv_heads, uint32_t head_dim) {
  ModelConfig config;
  config.layers = layers;
  config.kv_heads = kv_heads;
  config.head_dim = head_dim;
  return config;
}

TEST(KvRule, SmallModelsKeepF32AndLargeOnesF16) {
  EXPECT_EQ(AutoKvType(Shape(2, 2, 32)), KvType::kF32);
  EXPECT_EQ(AutoKvType(Shape(8, 4, 64)), KvType::kF32);  // 16 KiB a token, just
  EXPECT_EQ(AutoKvType(Shape(9, 4, 64)), KvType::kF16);
  EXPECT_EQ(AutoKvType(Shape(80, 8, 128)), KvType::kF16);
}

TEST(KvRule, BlocksMustDivideAHead) {
  EXPECT_TRUE(CheckKvType(Shape(1, 1, 96), KvType::kQ8_0).ok());
  EXPECT_TRUE(CheckKvType(Shape(1, 1, 80), KvType::kF16).ok());
  EXPECT_FALSE(CheckKvType(Shape(1, 1, 80), KvType::kQ8_0).ok());
}

}  // namespace
}  // namespace efedllm
