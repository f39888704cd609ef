#include "text/pair_merger.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>

namespace efedllm {
namespace {

// How often a text's neighbours are looked up, where every pair of equal symbols merges, and pairs
// of neighbours in the alphabet do too.
size_t CountLookups(const std::string& text) {
  PairMerger<int32_t, int32_t> merger;
  for (const char c : text) merger.Append(c);
  size_t lookups = 0;
  merger.Merge(
      [&lookups](int32_t left, int32_t right) -> std::optional<MergedPair<int32_t, int32_t>> {
        ++lookups;
        if (left != right && left + 1 != right) return std::nullopt;
        return {{(left + right) % 1000 + 1000, (left * 31 + right) % 97}};
      });
  return lookups;
}

// Counted, not timed: a pair at the beginning, and two new ones for each merge.
TEST(PairMerger, LooksUpNoMoreThanThreePairsForEachSymbol) {
  std::string noise;
  uint32_t state = 1;
  while (noise.size() < 100'000) {
    state = state * 1103515245 + 12345;
    noise += static_cast<char>('a' + (state >> 16) % 4);
  }
  for (const std::string& text :
       {std::string(100'000, 'a'), noise, noise + std::string(1000, 'b')}) {
    EXPECT_LE(CountLookups(text), 3 * text.size());
  }
}

TEST(PairMerger, ATextTwiceAsLongIsTwiceTheWork) {
  const std::string text(50'000, 'a');
  const double ratio =
      static_cast<double>(CountLookups(text + text)) / static_cast<double>(CountLookups(text));
  EXPECT_NEAR(ratio, 2, 0.1);
}

}  // namespace
}  // namespace efedllm
