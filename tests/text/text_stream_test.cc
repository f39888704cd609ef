#include "text/text_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/random.h"

namespace efedllm {
namespace {

// All of the text, given in pieces of `size` bytes.
std::string CutText(const std::vector<std::string>& stops, const std::string& text, size_t size,
                    bool* stopped = nullptr) {
  TextStream stream(stops);
  std::string out;
  for (size_t i = 0; i < text.size(); i += size) out += stream.Append(text.substr(i, size));
  out += stream.Finish();
  if (stopped != nullptr) *stopped = stream.stopped();
  return out;
}

TEST(TextStream, HandsOutTextAtOnceWhenNothingCanStopIt) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("Hello"), "Hello");
  EXPECT_EQ(stream.Append(" wörld"), " wörld");
  EXPECT_EQ(stream.Finish(), "");
  EXPECT_FALSE(stream.stopped());
}

TEST(TextStream, HoldsBackAnIncompleteCharacter) {
  TextStream stream({});
  EXPECT_EQ(stream.Append("a\xe2"), "a");
  EXPECT_EQ(stream.Append("\x82"), "");
  EXPECT_EQ(stream.Append("\xac!"), "€!");
}

TEST(TextStream, ReplacesWhatCannotBecomeUtf8) {
  EXPECT_EQ(CutText({},
                    "a\xff"
                    "b\xe2\x82"
                    "c\xed\xa0\x80",
                    1),
            "a\ufffdb\ufffdc\ufffd\ufffd\ufffd");
  EXPECT_EQ(CutText({}, "a\xe2\x82", 1), "a\ufffd");  // never completed
}

TEST(TextStream, CutsBeforeAStopStringAcrossTokens) {
  for (size_t size = 1; size < 20; ++size) {
    bool stopped = false;
    EXPECT_EQ(CutText({"STOP"}, "one two STOP three", size, &stopped), "one two ");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(CutText({"STOP"}, "one two STO three ST", size, &stopped), "one two STO three ST");
    EXPECT_FALSE(stopped);
  }
}

TEST(TextStream, CutsInsideATokenAndIgnoresWhatFollows) {
  TextStream stream({"\n\n"});
  EXPECT_EQ(stream.Append("a\n\nb"), "a");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.Append("c"), "");
  EXPECT_EQ(stream.Finish(), "");
}

TEST(TextStream, HoldsBackNoMoreThanMayStop) {
  TextStream stream({"abcabd"});
  EXPECT_EQ(stream.Append("xabc"), "x");
  EXPECT_EQ(stream.Append("abc"), "abc");  // "abc" may still begin it
  EXPECT_EQ(stream.Append("abd"), "");
  EXPECT_TRUE(stream.stopped());
}

TEST(TextStream, StopStringsMayHoldCharactersThatTokensCut) {
  for (size_t size = 1; size < 8; ++size) {
    EXPECT_EQ(CutText({"€€"}, "5 €, 6 €€ 7", size), "5 €, 6 ");
    // U+20AD shares its first two bytes with the euro sign.
    EXPECT_EQ(CutText({"€"}, "₭₭€", size), "₭₭");
  }
}

TEST(TextStream, TheStopStringThatBeginsFirstWins) {
  for (size_t size = 1; size < 6; ++size) {
    bool stopped = false;
    EXPECT_EQ(CutText({"b", "abc"}, "xabcd", size, &stopped), "x");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(CutText({"b", "abc"}, "xabd", size, &stopped), "xa");
    EXPECT_TRUE(stopped);
    EXPECT_EQ(CutText({"b", "abc"}, "xab", size, &stopped), "xa");  // the text ends while unsure
    EXPECT_TRUE(stopped);
  }
}

TEST(TextStream, EmptyStopStringsAreIgnored) { EXPECT_EQ(CutText({"", ""}, "abc", 1), "abc"); }

TEST(TextStream, EqualsCuttingTheWholeTextHoweverItIsSplit) {
  const uint64_t seed = 20260101;
  Random random(seed);
  const std::string alphabet[] = {"a", "b", "é", "€", "\xff"};
  const auto word = [&](uint64_t letters, uint64_t n) {
    std::string text;
    for (uint64_t i = 0; i < n; ++i) text += alphabet[random.Below(letters)];
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (uint64_t i = 0; i <= random.Below(3); ++i) stops.push_back(word(4, 1 + random.Below(4)));
    const std::string text = word(5, random.Below(16));
    const std::string clean = CutText({}, text, 100);
    size_t cut = std::string::npos;
    for (const std::string& stop : stops) cut = std::min(cut, clean.find(stop));
    bool stopped = false;
    ASSERT_EQ(CutText(stops, text, 1 + random.Below(5), &stopped), clean.substr(0, cut))
        << "seed " << seed << " round " << round;
    ASSERT_EQ(stopped, cut != std::string::npos);
  }
}

TEST(TextStream, ALongRepetitiveStopStringCostsNoMore) {
  const std::string stop = std::string(100'000, 'a') + "b";
  EXPECT_EQ(CutText({stop, stop}, std::string(300'000, 'a'), 3).size(), 300'000u);
}

}  // namespace
}  // namespace efedllm
