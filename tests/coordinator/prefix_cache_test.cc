#include "coordinator/prefix_cache.h"

#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "common/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "layers/kv_cache.h"

namespace efedllm {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<int32_t> Count(int32_t from, size_t n) {
  std::vector<int32_t> tokens(n);
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}

// Runs a lease to its end: all of tokens computed in one step.
std::optional<SequenceFork> Compute(PrefixCache& cache, PrefixCache::Lease& lease,
                                    const std::vector<int32_t>& tokens) {
  EXPECT_TRUE(cache.Grow(lease, static_cast<uint32_t>(tokens.size())));
  const std::optional<SequenceFork> fork = cache.Start(lease);
  cache.Publish(lease, tokens);
  return fork;
}

void Remember(PrefixCache& cache, const std::vector<int32_t>& tokens) {
  PrefixCache::Lease lease = cache.Begin(tokens, /*share=*/true);
  Compute(cache, lease, tokens);
  cache.End(lease, tokens);
}

TEST(PrefixCache, KnowsNothingAtFirst) {
  SequenceIds ids;
  PrefixCache cache(8, ids);
  PrefixCache::Lease lease = cache.Begin(Count(0, 200), true);
  EXPECT_EQ(lease.cached(), 0u);
  EXPECT_FALSE(Compute(cache, lease, Count(0, 200)).has_value());
  EXPECT_EQ(cache.held_pages(), 4u);
}

// Else what nodes claim of one request would be held against another's rows.
TEST(PrefixCache, ASequencesNumberIsNeverGivenAgain) {
  SequenceIds ids;
  std::set<SequenceId> seen;
  for (int epoch = 0; epoch < 3; ++epoch) {
    PrefixCache chain(8, ids), other(8, ids);
    for (PrefixCache* cache : {&chain, &other}) {
      PrefixCache::Lease lease = cache->Begin(Count(0, 200), true);
      EXPECT_TRUE(seen.insert(lease.id()).second);
      cache->End(lease, {});
    }
  }
}

TEST(PrefixCache, TheSamePromptIsKnownUpToItsLastToken) {
  SequenceIds ids;
  PrefixCache cache(8, ids);
  Remember(cache, Count(0, 200));
  EXPECT_EQ(cache.held_pages(), 0u);
  EXPECT_EQ(cache.used_pages(), 4u);
  PrefixCache::Lease lease = cache.Begin(Count(0, 200), true);
  EXPECT_EQ(lease.cached(), 199u);
  const auto fork = Compute(cache, lease, Count(0, 200));
  ASSERT_TRUE(fork.has_value());
  EXPECT_EQ(fork->tokens, 199u);
  EXPECT_EQ(cache.used_pages(), 5u) << "the last page is copied";
}

TEST(PrefixCache, WhatIsComputedNowCanBeSharedAtOnce) {
  SequenceIds ids;
  PrefixCache cache(16, ids);
  PrefixCache::Lease first = cache.Begin(Count(0, 300), true);
  const SequenceId id = first.id();
  Compute(cache, first, Count(0, 300));
  PrefixCache::Lease second = cache.Begin(Count(0, 300), true);
  EXPECT_EQ(second.cached(), 256u) << "whole pages of one that still runs";
  EXPECT_EQ(Compute(cache, second, Count(0, 300))->parent, id);
}

TEST(PrefixCache, BranchesWhereTextsDiffer) {
  SequenceIds ids;
  PrefixCache cache(16, ids);
  std::vector<int32_t> other = Count(0, 200);
  other[100] = -1;
  Remember(cache, Count(0, 200));
  Remember(cache, other);
  EXPECT_EQ(cache.Begin(Count(0, 200), true).cached(), 199u);
  EXPECT_EQ(cache.Begin(other, true).cached(), 199u);
}

TEST(PrefixCache, EvictsWhatWasNotUsedForTheLongestTime) {
  SequenceIds ids;
  PrefixCache cache(4, ids);
  Remember(cache, Count(0, 128));
  Remember(cache, Count(1000, 128));
  Remember(cache, Count(0, 128));  // used again
  EXPECT_THAT(cache.TakeTrims(100), ::testing::Not(IsEmpty()));
  PrefixCache::Lease lease = cache.Begin(Count(2000, 128), true);
  EXPECT_TRUE(cache.Grow(lease, 128));
  EXPECT_EQ(cache.Look(Count(0, 129)).pages, 2u);
  EXPECT_EQ(cache.Look(Count(1000, 129)).pages, 0u);
  EXPECT_THAT(cache.TakeTrims(100), SizeIs(1)) << "one sequence on the nodes, whole";
}

TEST(PrefixCache, NobodyLosesWhatHeHolds) {
  SequenceIds ids;
  PrefixCache cache(4, ids);
  PrefixCache::Lease first = cache.Begin(Count(0, 200), true);
  ASSERT_TRUE(cache.Grow(first, 200));
  PrefixCache::Lease second = cache.Begin(Count(1000, 10), true);
  EXPECT_FALSE(cache.Grow(second, 10));
  cache.End(first, {});
  EXPECT_TRUE(cache.Grow(second, 10));
}

TEST(PrefixCache, APartialBlockIsGivenUpForRoom) {
  SequenceIds ids;
  PrefixCache cache(2, ids);
  Remember(cache, Count(0, 100));
  // All of it is known up to the middle of a page; with that page's copy three would be needed.
  PrefixCache::Lease lease = cache.Begin(Count(0, 100), true);
  EXPECT_EQ(lease.cached(), 99u);
  EXPECT_FALSE(cache.Grow(lease, 100));
  EXPECT_EQ(lease.cached(), 64u);
  EXPECT_TRUE(cache.Grow(lease, 100));
}

TEST(PrefixCache, ATwinThatWasSlowerKeepsItsOwnPagesUntilItEnds) {
  SequenceIds ids;
  PrefixCache cache(8, ids);
  PrefixCache::Lease first = cache.Begin(Count(0, 128), true);
  PrefixCache::Lease second = cache.Begin(Count(0, 128), true);
  Compute(cache, first, Count(0, 128));
  Compute(cache, second, Count(0, 128));
  EXPECT_EQ(cache.used_pages(), 4u);
  cache.End(second, Count(0, 128));
  EXPECT_EQ(cache.used_pages(), 2u);
  cache.End(first, Count(0, 128));
  EXPECT_EQ(cache.used_pages(), 2u);
}

TEST(PrefixCache, ClearForgetsAllThatNobodyHolds) {
  SequenceIds ids;
  PrefixCache cache(8, ids);
  Remember(cache, Count(0, 200));
  Remember(cache, Count(1000, 200));
  cache.Clear({});
  EXPECT_EQ(cache.used_pages(), 0u);
  const std::vector<SequenceTrim> trims = cache.TakeTrims(100);
  EXPECT_THAT(trims, SizeIs(2));
  cache.Clear(trims);
  EXPECT_THAT(cache.TakeTrims(100), SizeIs(2)) << "the nodes did not see them";
}

// What random sequences do, done on a real KV cache too: it must never run out, and hold exactly
// the pages that the coordinator believes.
class PrefixCacheWalk : public testing::TestWithParam<uint64_t> {};

TEST_P(PrefixCacheWalk, AgreesWithTheNodes) {
  constexpr uint64_t kPages = 24;
  Random random(GetParam());
  SCOPED_TRACE(testing::Message() << "seed " << GetParam());
  SequenceIds ids;
  PrefixCache cache(kPages, ids);
  auto kv = *KvCache::Create({1, 1, 32, KvType::kF32}, kPages * KvCache::kPagePositions);
  struct Running {
    PrefixCache::Lease lease;
    std::vector<int32_t> tokens;  // all that it will have
    uint32_t done = 0;
  };
  std::vector<Running> running;
  const auto below = [&](uint64_t n) { return random.Next() % n; };
  for (int step = 0; step < 600; ++step) {
    if (running.size() < 4 && below(3) == 0) {
      // A few stems, so that much is shared, and short and long ones.
      Running next;
      next.tokens = Count(static_cast<int32_t>(below(3)) * 1000, 1 + below(300));
      if (below(2) == 0) next.tokens[below(next.tokens.size())] = -static_cast<int32_t>(below(3));
      next.lease = cache.Begin(next.tokens, below(8) != 0);
      next.done = next.lease.cached();
      running.push_back(std::move(next));
    }
    std::vector<SequenceFork> forks;
    std::vector<KvSpan> spans;
    for (size_t i = 0; i < running.size(); ++i) {
      Running& r = running[i];
      if (!r.lease.begun()) {
        cache.Rematch(r.lease, r.tokens);
        r.done = r.lease.cached();
      }
    }
    for (size_t i = running.size(); i-- > 0;) {
      Running& r = running[i];
      const auto computed = absl::MakeConstSpan(r.tokens).first(r.done);
      if (r.done == r.tokens.size() || below(20) == 0) {
        cache.End(r.lease, computed);
        running.erase(running.begin() + static_cast<long>(i));
        continue;
      }
      const auto chunk =
          static_cast<uint32_t>(std::min<uint64_t>(1 + below(100), r.tokens.size() - r.done));
      if (!cache.Grow(r.lease, r.done + chunk)) {
        r.done = r.lease.begun() ? r.done : r.lease.cached();
        continue;
      }
      if (!r.lease.begun()) {
        if (const auto fork = cache.Start(r.lease)) forks.push_back(*fork);
      }
      spans.push_back({r.lease.id(), r.done, chunk});
      r.done += chunk;
      cache.Publish(r.lease, absl::MakeConstSpan(r.tokens).first(r.done));
    }
    for (const SequenceTrim& trim : cache.TakeTrims(1000)) {
      kv->Truncate(trim.sequence, trim.length);
    }
    for (const SequenceFork& fork : forks) {
      ASSERT_TRUE(kv->Fork(fork.sequence, fork.parent, fork.tokens).ok()) << step;
    }
    ASSERT_TRUE(kv->Extend(spans).ok()) << step;
    for (Running& r : running) {
      if (r.lease.begun()) cache.Unpin(r.lease);
    }
    ASSERT_EQ(kv->tokens_used(), cache.used_pages() * KvCache::kPagePositions) << step;
    ASSERT_LE(cache.held_pages(), cache.used_pages());
    ASSERT_LE(cache.used_pages(), cache.pages());
    if (spans.empty() && running.size() == 4) {
      cache.End(running[0].lease, absl::MakeConstSpan(running[0].tokens).first(running[0].done));
      running.erase(running.begin());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, PrefixCacheWalk, testing::Range<uint64_t>(1, 41));

}  // namespace
}  // namespace efedllm
