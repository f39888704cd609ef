#include "cluster/chunk_record.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random.h"

namespace efedllm {
namespace {

constexpr SequenceId kA{1}, kB{2};

// Drives a record; every row's digest is its own.
class Recorder {
 public:
  std::vector<ClosedChunk> Span(SequenceId sequence, uint32_t first, uint32_t tokens) {
    Step step;
    step.spans.push_back({sequence, first, tokens});
    return Pass(step);
  }
  std::vector<ClosedChunk> Pass(const Step& step) {
    std::vector<RecordedRow> rows;
    for (const SequenceSpan& span : step.spans) {
      for (uint32_t i = 0; i < span.tokens; ++i) {
        const std::string text = absl::StrCat(++rows_, " of ", span.first_position + i);
        rows.push_back({{RowDigest(1, text), 1, 10}, {RowDigest(2, text), 2, 5}});
      }
    }
    std::vector<ClosedChunk> closed;
    record_.Pass(step, rows, closed);
    return closed;
  }
  std::vector<ClosedChunk> Trim(SequenceId sequence, uint32_t length) {
    Step step;
    step.trims.push_back({sequence, length});
    return Pass(step);
  }
  std::vector<ClosedChunk> End() {
    std::vector<ClosedChunk> closed;
    record_.CloseAll(closed);
    return closed;
  }

 private:
  ChunkRecord record_;
  int rows_ = 0;
};

std::string Ranges(const std::vector<ClosedChunk>& chunks) {
  std::string text;
  for (const ClosedChunk& chunk : chunks) {
    absl::StrAppend(&text, text.empty() ? "" : " ", chunk.claim.sequence.v, ":",
                    chunk.claim.first_position, "-", chunk.claim.end());
  }
  return text;
}

TEST(ChunkRecord, AChunkClosesWhenItsSequenceGoesOnBeyondIt) {
  Recorder recorder;
  EXPECT_EQ(Ranges(recorder.Span(kA, 0, 63)), "");
  EXPECT_EQ(Ranges(recorder.Span(kA, 63, 1)), "");  // full, but it may be taken back
  EXPECT_EQ(Ranges(recorder.Span(kB, 0, 200)), "");
  EXPECT_EQ(Ranges(recorder.Span(kA, 64, 1)), "1:0-64");
  EXPECT_EQ(Ranges(recorder.Span(kB, 200, 5)), "2:0-64 2:64-128 2:128-192");
  EXPECT_EQ(Ranges(recorder.End()), "1:64-65 2:192-205");
}

TEST(ChunkRecord, WhatASpanTakesBackIsNotClaimed) {
  Recorder recorder;
  recorder.Span(kA, 0, 60);
  recorder.Span(kA, 60, 8);  // guesses, of which three were right
  EXPECT_EQ(Ranges(recorder.Span(kA, 63, 8)), "");
  EXPECT_EQ(Ranges(recorder.Span(kA, 71, 1)), "1:0-64");
  EXPECT_EQ(Ranges(recorder.End()), "1:64-72");
}

TEST(ChunkRecord, WhatIsComputedAgainBelowAClosedChunkIsClaimedAgain) {
  Recorder recorder;
  recorder.Span(kA, 0, 70);
  EXPECT_EQ(Ranges(recorder.Span(kA, 70, 1)), "1:0-64");
  EXPECT_EQ(Ranges(recorder.Span(kA, 10, 60)), "");
  EXPECT_EQ(Ranges(recorder.Span(kA, 70, 1)), "1:10-64");
  EXPECT_EQ(Ranges(recorder.End()), "1:64-71");
}

TEST(ChunkRecord, ATrimThatShortensClosesAll) {
  Recorder recorder;
  recorder.Span(kA, 0, 100);
  EXPECT_EQ(Ranges(recorder.Trim(kA, 100)), "");
  EXPECT_EQ(Ranges(recorder.Trim(kB, 0)), "");
  EXPECT_EQ(Ranges(recorder.Trim(kA, 80)), "1:0-64 1:64-100");
  EXPECT_EQ(Ranges(recorder.Span(kA, 80, 10)), "");
  EXPECT_EQ(Ranges(recorder.Trim(kA, 0)), "1:80-90");
  EXPECT_EQ(Ranges(recorder.End()), "");
}

TEST(ChunkRecord, ForgettingOthersClosesThem) {
  Recorder recorder;
  recorder.Span(kA, 5, 10);
  recorder.Span(kB, 5, 10);
  Step step;
  step.forget_others = true;
  step.trims.push_back({kB, 20});
  EXPECT_EQ(Ranges(recorder.Pass(step)), "1:5-15");
  EXPECT_EQ(Ranges(recorder.End()), "2:5-15");
}

TEST(ChunkRecord, BeginsWhereTheEpochDoesAndSkipsWhatItDidNotSee) {
  Recorder recorder;
  EXPECT_EQ(Ranges(recorder.Span(kA, 100, 10)), "");
  EXPECT_EQ(Ranges(recorder.Span(kA, 120, 10)), "1:100-110");
  EXPECT_EQ(Ranges(recorder.End()), "1:120-128 1:128-130");
}

TEST(ChunkRecord, AStepThatFailedOnlyTrims) {
  ChunkRecord record;
  std::vector<ClosedChunk> closed;
  Step step;
  step.spans.push_back({kA, 0, 2});
  record.Pass(step, {}, closed);
  record.CloseAll(closed);
  EXPECT_TRUE(closed.empty());
}

TEST(ChunkRecord, ASideThatIsNotKnownOfEveryRowIsNotClaimed) {
  ChunkRecord record;
  std::vector<ClosedChunk> closed;
  Step step;
  step.spans.push_back({kA, 0, 2});
  const RecordedRow row{{RowDigest(1, "x"), 1, 10}, {}};
  record.Pass(step, {row, row}, closed);
  record.CloseAll(closed);
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_TRUE(closed[0].inputs_known);
  EXPECT_FALSE(closed[0].outputs_known);
  EXPECT_EQ(closed[0].claim.inputs.bytes, 20u);
  EXPECT_EQ(closed[0].claim.inputs.digest, ChunkDigest({row.input.digest, row.input.digest}));
}

// Each chunk within one multiple, no rows lost, none claimed that was taken back before it closed.
TEST(ChunkRecord, ClaimsWhatStoodThereWhenItClosed) {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    ChunkRecord record;
    std::vector<RecordedRow> now;  // of kA, by position
    std::vector<ClosedChunk> closed;
    int number = 0;
    for (int i = 0; i < 30; ++i) {
      const auto first =
          static_cast<uint32_t>(now.size() - random.Below(std::min<uint64_t>(now.size(), 5) + 1));
      Step step;
      step.spans.push_back({kA, first, static_cast<uint32_t>(1 + random.Below(90))});
      std::vector<RecordedRow> rows;
      for (uint32_t r = 0; r < step.spans[0].tokens; ++r) {
        const std::string text = absl::StrCat(++number);
        rows.push_back({{RowDigest(1, text), 1, 1}, {RowDigest(2, text), 2, 1}});
      }
      closed.clear();
      record.Pass(step, rows, closed);
      for (const ClosedChunk& chunk : closed) {
        ASSERT_EQ(chunk.claim.first_position / kChunkTokens,
                  (chunk.claim.end() - 1) / kChunkTokens);
        ASSERT_LE(chunk.claim.end(), first);
        std::vector<Sha256Digest> digests;
        for (uint32_t p = chunk.claim.first_position; p < chunk.claim.end(); ++p) {
          digests.push_back(now[p].output.digest);
        }
        ASSERT_EQ(chunk.claim.outputs.digest, ChunkDigest(digests));
      }
      now.resize(first);
      now.insert(now.end(), rows.begin(), rows.end());
    }
  }
}

}  // namespace
}  // namespace efedllm
