#include "layers/kv_cache.h"

#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/random.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

// An output has the size of the number by which the tests know a position.
constexpr KvShape kShape{.layers = 2, .kv_heads = 2, .head_dim = 4, .output_dim = 2};

TEST(KvCache, CountsWholePages) {
  auto kv = *KvCache::Create(kShape, 130);
  EXPECT_EQ(kv->tokens_total(), 192u);
  EXPECT_EQ(kv->tokens_used(), 0u);
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 65}}).ok());
  EXPECT_EQ(kv->tokens_used(), 128u);
  EXPECT_EQ(kv->length(SequenceId{1}), 65u);
  kv->Truncate(SequenceId{1}, 64);
  EXPECT_EQ(kv->tokens_used(), 64u);
  kv->Truncate(SequenceId{1}, 0);
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
  shape.output_dim = 100;
  EXPECT_EQ(shape.BytesPerToken(), 3u * 2 * 2 * 2 * 34 + 400);
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

TEST(KvCache, ForksShareFullPagesAndCopyTheLast) {
  auto kv = *KvCache::Create(kShape, 6 * 64);
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 150}}).ok());
  ASSERT_TRUE(kv->Fork(SequenceId{2}, SequenceId{1}, 140).ok());
  ASSERT_TRUE(kv->Fork(SequenceId{3}, SequenceId{2}, 128).ok());
  EXPECT_EQ(kv->length(SequenceId{2}), 140u);
  EXPECT_EQ(kv->tokens_used(), 4u * 64);  // three of the first, and the second's copy
  EXPECT_EQ(kv->pages(SequenceId{2})[1], kv->pages(SequenceId{1})[1]);
  EXPECT_NE(kv->pages(SequenceId{2})[2], kv->pages(SequenceId{1})[2]);
  kv->Truncate(SequenceId{1}, 0);
  EXPECT_EQ(kv->tokens_used(), 3u * 64);
  kv->Truncate(SequenceId{2}, 0);
  EXPECT_EQ(kv->tokens_used(), 2u * 64);
  kv->Truncate(SequenceId{3}, 0);
  EXPECT_EQ(kv->tokens_used(), 0u);
}

TEST(KvCache, RefusesForksThatCannotBe) {
  auto kv = *KvCache::Create(kShape, 2 * 64);
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 100}}).ok());
  EXPECT_EQ(kv->Fork(SequenceId{2}, SequenceId{1}, 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kv->Fork(SequenceId{2}, SequenceId{1}, 101).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kv->Fork(SequenceId{2}, SequenceId{9}, 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kv->Fork(SequenceId{1}, SequenceId{1}, 64).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kv->Fork(SequenceId{2}, SequenceId{1}, 65).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(kv->sequences(), 1u);
  EXPECT_TRUE(kv->Fork(SequenceId{2}, SequenceId{1}, 64).ok());
}

TEST(KvCache, CopiesASharedPageBeforeItIsWritten) {
  auto kv = *KvCache::Create(kShape, 3 * 64);
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 128}}).ok());
  ASSERT_TRUE(kv->Fork(SequenceId{2}, SequenceId{1}, 128).ok());
  EXPECT_EQ(kv->tokens_used(), 2u * 64);
  // Both go back into the second page and write there: one of them needs a copy, not both.
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 70, 10}, {SequenceId{2}, 100, 10}}).ok());
  EXPECT_EQ(kv->tokens_used(), 3u * 64);
  EXPECT_EQ(kv->pages(SequenceId{1})[0], kv->pages(SequenceId{2})[0]);
  EXPECT_NE(kv->pages(SequenceId{1})[1], kv->pages(SequenceId{2})[1]);
}

TEST(KvCache, APageThatACopyNeedsCountsAsWanted) {
  auto kv = *KvCache::Create(kShape, 2 * 64);
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 128}}).ok());
  ASSERT_TRUE(kv->Fork(SequenceId{2}, SequenceId{1}, 128).ok());
  EXPECT_EQ(kv->Extend({{SequenceId{2}, 100, 10}}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(kv->length(SequenceId{2}), 128u);
  // From the page's beginning on nothing is copied, but the page is still the parent's too.
  EXPECT_EQ(kv->Extend({{SequenceId{2}, 64, 10}}).code(), absl::StatusCode::kResourceExhausted);
  // Where both leave it, it is free for one of them.
  ASSERT_TRUE(kv->Extend({{SequenceId{1}, 0, 1}, {SequenceId{2}, 64, 0}}).code() ==
              absl::StatusCode::kOk);
  EXPECT_EQ(kv->tokens_used(), 2u * 64);
}

// The cache and what it should be: each sequence's positions with the values written there.
class RandomWorld {
 public:
  explicit RandomWorld(uint64_t seed) : random_(seed) {}

  void Act() {
    const uint64_t id = random_.Below(6);
    switch (random_.Below(7)) {
      case 6:
        return Carry(id, random_.Below(6));
      case 0:
        return Truncate(id, 0);
      case 1:
        return Truncate(id, static_cast<uint32_t>(random_.Below(400)));
      case 2:
      case 3:
        return Fork(id, random_.Below(6));
      default:
        return Extend();
    }
  }

  void Check() {
    std::map<const uint8_t*, std::set<uint64_t>> owners;
    for (const auto& [id, values] : values_) {
      ASSERT_EQ(kv_->length(SequenceId{id}), values.size());
      const auto pages = kv_->pages(SequenceId{id});
      ASSERT_EQ(pages.size(), (values.size() + 63) / 64);
      for (const uint8_t* page : pages) owners[page].insert(id);
      for (uint32_t i = 0; i < values.size(); ++i) {
        uint64_t value = 0;
        std::memcpy(&value, At(id, i), sizeof(value));
        ASSERT_EQ(value, values[i]) << "sequence " << id << ", position " << i;
        std::memcpy(&value, kv_->output(SequenceId{id}, i).data(), sizeof(value));
        ASSERT_EQ(value, values[i]) << "output of sequence " << id << ", position " << i;
      }
    }
    ASSERT_EQ(kv_->sequences(), values_.size());
    ASSERT_EQ(kv_->extents().size(), values_.size());
    ASSERT_EQ(kv_->tokens_used(), owners.size() * 64);
  }

  void ReleaseAll() {
    for (uint64_t id = 0; id < 6; ++id) Truncate(id, 0);
  }

 private:
  uint8_t* At(uint64_t id, uint32_t position) {
    return kv_->pages(SequenceId{id})[position / 64] + kv_->v_offset(1, 1) + position % 64 * 16;
  }

  void Truncate(uint64_t id, uint32_t length) {
    kv_->Truncate(SequenceId{id}, length);
    const auto it = values_.find(id);
    if (it == values_.end()) return;
    it->second.resize(std::min<size_t>(it->second.size(), length));
    if (length == 0) values_.erase(it);
  }

  void Fork(uint64_t child, uint64_t parent) {
    if (values_.contains(child) || !values_.contains(parent)) return;
    const std::vector<uint64_t> values = values_[parent];
    const size_t tokens = 1 + random_.Below(values.size());
    if (!kv_->Fork(SequenceId{child}, SequenceId{parent}, static_cast<uint32_t>(tokens)).ok()) {
      ASSERT_EQ(kv_->tokens_used(), kv_->tokens_total());
      return;
    }
    values_[child].assign(values.begin(), values.begin() + static_cast<int64_t>(tokens));
  }

  // Appends to a sequence what the same positions of another one hold.
  void Carry(uint64_t to, uint64_t from) {
    const size_t first = values_.contains(to) ? values_[to].size() : 0;
    if (!values_.contains(from) || values_[from].size() <= first) return;
    const size_t tokens = 1 + random_.Below(values_[from].size() - first);
    std::string bytes;
    ASSERT_TRUE(kv_->Export(SequenceId{from}, static_cast<uint32_t>(first),
                            static_cast<uint32_t>(tokens), bytes)
                    .ok());
    ASSERT_EQ(bytes.size(), tokens * kShape.BytesPerToken());
    if (!kv_->Import(SequenceId{to}, static_cast<uint32_t>(first), static_cast<uint32_t>(tokens),
                     bytes)
             .ok()) {
      return;
    }
    const std::vector<uint64_t> values = values_[from];
    for (size_t i = first; i < first + tokens; ++i) values_[to].push_back(values[i]);
  }

  // Of one or several sequences at once; a refusal changes nothing, which Check sees.
  void Extend() {
    std::vector<KvSpan> spans;
    for (uint64_t id = random_.Below(6); id < 6; id += 1 + random_.Below(6)) {
      const size_t held = values_.contains(id) ? values_[id].size() : 0;
      spans.push_back({SequenceId{id}, static_cast<uint32_t>(random_.Below(held + 1)),
                       static_cast<uint32_t>(1 + random_.Below(200))});
    }
    if (!kv_->Extend(spans).ok()) return;
    for (const KvSpan& span : spans) {
      std::vector<uint64_t>& values = values_[span.sequence.v];
      values.resize(span.first_position);
      for (uint32_t i = 0; i < span.tokens; ++i) {
        values.push_back(++last_value_);
        const uint32_t position = span.first_position + i;
        std::memcpy(At(span.sequence.v, position), &last_value_, sizeof(last_value_));
        std::memcpy(kv_->output(span.sequence, position).data(), &last_value_, sizeof(last_value_));
      }
    }
  }

  Random random_;
  std::unique_ptr<KvCache> kv_ = *KvCache::Create(kShape, 20 * 64);
  std::map<uint64_t, std::vector<uint64_t>> values_;
  uint64_t last_value_ = 0;
};

TEST(KvCache, KeepsEverySequencesValuesWhateverHappens) {
  for (uint64_t seed = 40; seed < 44; ++seed) {
    RandomWorld world(seed);
    for (int i = 0; i < 2000; ++i) {
      world.Act();
      world.Check();
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "seed " << seed << ", step " << i;
    }
    world.ReleaseAll();
    world.Check();
  }
}

}  // namespace
}  // namespace efedllm
