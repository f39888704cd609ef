#include "worker/kept_rows.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

constexpr Epoch kEpoch{3};
constexpr SequenceId kA{1}, kB{2};

class KeptRowsTest : public testing::Test {
 protected:
  // Rows say which run they are of.
  void Compute(const std::string& run, std::vector<SequenceSpan> spans,
               std::vector<SequenceFork> forks = {}, Epoch epoch = kEpoch) {
    Step step;
    step.spans = std::move(spans);
    step.forks = std::move(forks);
    EncodedRows inputs, outputs;
    for (const SequenceSpan& span : step.spans) {
      for (uint32_t i = 0; i < span.tokens; ++i) {
        inputs.Add(absl::StrCat(run, "<", span.first_position + i));
        outputs.Add(absl::StrCat(run, ">", span.first_position + i));
      }
    }
    kept_.Add(epoch, step, {inputs, 2}, {outputs, 3});
  }
  std::string Find(SequenceId sequence, uint32_t first, uint32_t tokens, bool outputs = false,
                   uint32_t version = 0, Epoch epoch = kEpoch) {
    const auto rows = kept_.Find({epoch, sequence, first, tokens, outputs, version});
    if (!rows.ok()) return std::string(absl::StatusCodeToString(rows.status().code()));
    std::string text;
    for (const CodedRow& row : *rows) {
      EXPECT_EQ(row.codec, outputs ? 3u : 2u);
      absl::StrAppend(&text, text.empty() ? "" : " ", row.bytes);
    }
    return text;
  }
  void Claim(SequenceId sequence, uint32_t first, uint32_t tokens) {
    ClosedChunk chunk;
    chunk.claim.sequence = sequence;
    chunk.claim.first_position = first;
    chunk.claim.tokens = tokens;
    kept_.MarkClaimed(kEpoch, {chunk});
  }

  KeptRows kept_{RowLogOptions{.memory_bytes = 4 << 20, .disk_bytes = 0, .path = ""}};
};

TEST_F(KeptRowsTest, FindsBothSidesOfWhatWasComputed) {
  Compute("a", {{kA, 0, 3}, {kB, 5, 1}});
  Compute("b", {{kA, 3, 1}});
  EXPECT_EQ(Find(kA, 0, 4), "a<0 a<1 a<2 b<3");
  EXPECT_EQ(Find(kA, 2, 9, /*outputs=*/true), "a>2 b>3");
  EXPECT_EQ(Find(kB, 5, 1), "a<5");
  EXPECT_EQ(Find(kB, 0, 6), "NOT_FOUND");  // never here
  EXPECT_EQ(Find(kA, 4, 1), "NOT_FOUND");
  EXPECT_EQ(Find(SequenceId{9}, 0, 1), "NOT_FOUND");
  EXPECT_EQ(Find(kA, 0, 1, false, 0, Epoch{4}), "NOT_FOUND");
}

TEST_F(KeptRowsTest, AForkBeginsWithItsParentsRows) {
  Compute("a", {{kA, 0, 4}});
  Compute("b", {{kB, 2, 2}}, {{kB, kA, 2}});
  Compute("c", {{kA, 4, 1}});
  EXPECT_EQ(Find(kB, 0, 4), "a<0 a<1 b<2 b<3");
  EXPECT_EQ(Find(kA, 0, 5), "a<0 a<1 a<2 a<3 c<4");
}

TEST_F(KeptRowsTest, WhatWasClaimedStaysWhenItIsComputedAgain) {
  Compute("a", {{kA, 0, 4}});
  Compute("b", {{kA, 3, 2}});  // guesses, taken back
  EXPECT_EQ(Find(kA, 0, 5), "a<0 a<1 a<2 b<3 b<4");
  EXPECT_EQ(Find(kA, 0, 1, false, 1), "NOT_FOUND");
  Claim(kA, 0, 5);
  Compute("c", {{kA, 2, 1}});
  EXPECT_EQ(Find(kA, 0, 5), "a<0 a<1 c<2");
  EXPECT_EQ(Find(kA, 0, 5, false, 1), "a<0 a<1 a<2 b<3 b<4");
}

TEST_F(KeptRowsTest, AStageThatGoesOnHasTheRowsOfTheEpochBefore) {
  Compute("a", {{kA, 0, 2}});
  kept_.Continue(Epoch{4}, kEpoch);
  Compute("b", {{kA, 2, 1}}, {}, Epoch{4});
  EXPECT_EQ(Find(kA, 0, 3, false, 0, Epoch{4}), "a<0 a<1 b<2");
  EXPECT_EQ(Find(kA, 0, 3), "a<0 a<1 b<2");
  Compute("c", {{kA, 0, 1}}, {}, Epoch{5});
  EXPECT_EQ(Find(kA, 0, 1, false, 0, Epoch{5}), "c<0");
}

TEST_F(KeptRowsTest, OldSequencesGoWithTheirBytes) {
  const std::string large(100'000, 'x');
  for (uint64_t i = 1; i <= 100; ++i) {
    Compute(large, {{SequenceId{i}, 0, 2}});
    kept_.Tend();
  }
  EXPECT_EQ(Find(SequenceId{1}, 0, 1), "NOT_FOUND");
  EXPECT_NE(Find(SequenceId{100}, 0, 1), "NOT_FOUND");
}

// A long prompt that all requests share is in each one's list.
TEST_F(KeptRowsTest, APrefixStaysWhileSequencesBeginWithIt) {
  const std::string large(10'000, 'x');
  Compute("a" + large, {{kA, 0, 3}});
  for (uint64_t i = 2; i <= 1000; ++i) {
    Compute(large, {{SequenceId{i}, 2, 2}}, {{SequenceId{i}, kA, 2}});
    kept_.Tend();
    ASSERT_NE(Find(SequenceId{i}, 0, 2), "NOT_FOUND") << i;
  }
  EXPECT_EQ(Find(kA, 2, 1), "NOT_FOUND");  // nobody shares that one
}

TEST_F(KeptRowsTest, ManyForksOfALongSequenceDropOlderOnes) {
  Compute("a", {{kA, 0, 10'000}});
  for (uint64_t i = 2; i <= 100; ++i) {
    Compute("b", {{SequenceId{i}, 10'000, 1}}, {{SequenceId{i}, kA, 10'000}});
    kept_.Tend();
  }
  EXPECT_EQ(Find(SequenceId{2}, 10'000, 1), "NOT_FOUND");
  EXPECT_EQ(Find(SequenceId{100}, 9'999, 2), "a<9999 b<10000");
}

TEST_F(KeptRowsTest, AnAnswerIsAsLongAsAMessageMayBe) {
  const std::string large(200'000, 'x');
  Compute(large, {{kA, 0, 4}});
  EXPECT_EQ(kept_.Find({kEpoch, kA, 0, 4, false, 0})->size(), 2u);
  const std::string larger(600'000, 'x');
  Compute(larger, {{kB, 0, 2}});
  EXPECT_EQ(kept_.Find({kEpoch, kB, 0, 2, false, 0})->size(), 1u);
}

}  // namespace
}  // namespace efedllm
