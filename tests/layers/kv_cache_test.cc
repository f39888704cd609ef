#include "layers/kv_cache.h"

#include <map>
#include <set>
#include <vector>

#include "common/random.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

constexpr KvShape kShape{.layers = 2, .kv_heads = 2, .head_dim = 4};

TEST(KvCache, CountsWholePages) {
  auto kv = *KvCache::Create(kShape, 130);
  EXPECT_EQ(kv->tokens_total(), 192u);
  EXPECT_EQ(kv->tokens_used(), 0u);
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 65}}).ok());
  EXPECT_EQ(kv->tokens_used(), 128u);
  EXPECT_EQ(kv->length(SequenceId{1}), 65u);
  kv->Truncate(SequenceId{1}, 64);
  EXPECT_EQ(kv->tokens_used(), 64u);
  kv->Release(SequenceId{1});
  EXPECT_EQ(kv->tokens_used(), 0u);
  EXPECT_EQ(kv->sequences(), 0u);
}

TEST(KvCache, ExtendsAllSpansOrNone) {
  auto kv = *KvCache::Create(kShape, 192);
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 100}}).ok());
  const absl::Status full = kv->Extend({{SequenceId{2}, 0, 10}, {SequenceId{3}, 0, 10}});
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(kv->sequences(), 1u);
  EXPECT_EQ(kv->Extend({{SequenceId{1}, 101, 1}}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kv->Extend({{SequenceId{1}, 100, 1}, {SequenceId{1}, 101, 1}}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kv->length(SequenceId{1}), 100u);
}

TEST(KvCache, RewindsAndReusesWhatTheSameStepFrees) {
  auto kv = *KvCache::Create(kShape, 192);
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 192}}).ok());
  ASSERT_TRUE(kv->Extend({{SequenceId{2}, 0, 64}, {SequenceId{1}, 10, 100}}).ok());
  EXPECT_EQ(kv->length(SequenceId{1}), 110u);
  EXPECT_EQ(kv->length(SequenceId{2}), 64u);
}

TEST(KvCache, RefusesAbsurdSizes) {
  EXPECT_FALSE(KvCache::Create(kShape, 0).ok());
  EXPECT_FALSE(KvCache::Create(kShape, uint64_t{1} << 62).ok());
  EXPECT_FALSE(KvCache::Create({.layers = 1u << 31, .kv_heads = 1, .head_dim = 1u << 31}, 64).ok());
}

TEST(KvCache, CountsBytesByType) {
  KvShape shape{.layers = 3, .kv_heads = 2, .head_dim = 64};
  EXPECT_EQ(shape.BytesPerToken(), 3u * 2 * 2 * 64 * 4);
  shape.type = KvType::kF16;
  EXPECT_EQ(shape.BytesPerToken(), 3u * 2 * 2 * 64 * 2);
  shape.type = KvType::kQ8_0;
  EXPECT_EQ(shape.BytesPerToken(), 3u * 2 * 2 * 2 * 34);
}

TEST(KvCache, RefusesHeadsThatBlocksDoNotDivide) {
  const auto kv =
      KvCache::Create({.layers = 1, .kv_heads = 1, .head_dim = 80, .type = KvType::kQ8_0}, 64);
  EXPECT_EQ(kv.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kv.status().message(),
            "keys and values can't be kept as q8_0: heads of 80 dimensions are no multiple of 32");
}

// Takes RAM only when written: a terabyte of address space costs nothing.
TEST(KvCache, ReservesLazily) {
  auto kv = KvCache::Create({.layers = 32, .kv_heads = 8, .head_dim = 128}, 1 << 20);
  if (!kv.ok()) GTEST_SKIP() << kv.status();
  ASSERT_TRUE((*kv)->Extend({{SequenceId{1}, 0, 1}}).ok());
  (*kv)->pages(SequenceId{1})[0][(*kv)->v_offset(31, 7)] = 1;
}

TEST(KvCache, PagesAreNeverSharedWhateverHappens) {
  constexpr uint64_t kSeed = 40;
  Random random(kSeed);
  auto kv = *KvCache::Create(kShape, 20 * 64);
  std::map<uint64_t, uint32_t> lengths;
  for (int i = 0; i < 2000; ++i) {
    const uint64_t id = random.Below(6);
    const uint32_t held = lengths.count(id) ? lengths[id] : 0;
    switch (random.Below(4)) {
      case 0:
        kv->Release(SequenceId{id});
        lengths.erase(id);
        break;
      case 1: {
        const uint32_t to = static_cast<uint32_t>(random.Below(400));
        kv->Truncate(SequenceId{id}, to);
        if (lengths.count(id)) lengths[id] = std::min(held, to);
        break;
      }
      default: {
        const uint32_t first = static_cast<uint32_t>(random.Below(held + 1));
        const uint32_t tokens = static_cast<uint32_t>(1 + random.Below(300));
        if (kv->Extend({{SequenceId{id}, first, tokens}}).ok()) lengths[id] = first + tokens;
      }
    }
    std::set<const uint8_t*> pages;
    size_t count = 0;
    for (const auto& [sequence, length] : lengths) {
      ASSERT_EQ(kv->length(SequenceId{sequence}), length) << "seed " << kSeed << ", step " << i;
      ASSERT_EQ(kv->pages(SequenceId{sequence}).size(), (length + 63) / 64);
      for (const uint8_t* page : kv->pages(SequenceId{sequence})) pages.insert(page), ++count;
    }
    ASSERT_EQ(pages.size(), count) << "seed " << kSeed << ", step " << i;
    ASSERT_EQ(kv->tokens_used(), count * 64);
  }
}

}  // namespace
}  // namespace efedllm
