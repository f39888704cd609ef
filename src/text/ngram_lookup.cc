#include "text/ngram_lookup.h"

#include <algorithm>

#include "common/check.h"

namespace efedllm {
namespace {

constexpr size_t kFirstSlots = 256;

}  // namespace

void NgramLookup::Append(absl::Span<const int32_t> tokens) {
  for (const int32_t token : tokens) Append(token);
}

// The n-grams that end before the new token are indexed with it: now something follows them.
void NgramLookup::Append(int32_t token) {
  if (2 * (tokens_.size() + 1) > ends_[0].size()) Grow();
  Index(tokens_.size());
  tokens_.push_back(token);
}

void NgramLookup::Index(size_t end) {
  for (uint32_t n = kLeastMatch; n <= kIndexedMatch && n <= end; ++n) {
    Slot(end, n) = static_cast<uint32_t>(end);
  }
}

void NgramLookup::Grow() {
  const size_t slots = std::max(kFirstSlots, 2 * ends_[0].size());
  for (std::vector<uint32_t>& ends : ends_) ends.assign(slots, 0);
  for (size_t end = kLeastMatch; end < tokens_.size(); ++end) Index(end);
}

// How many tokens before `a` and before `b` are the same.
uint32_t NgramLookup::Common(size_t a, size_t b) const {
  const auto most = static_cast<uint32_t>(std::min<size_t>({a, b, kMostMatch}));
  uint32_t length = 0;
  while (length < most && tokens_[a - 1 - length] == tokens_[b - 1 - length]) ++length;
  return length;
}

// Where the n tokens before `end` are, or would be.
uint32_t& NgramLookup::Slot(size_t end, uint32_t n) {
  uint64_t hash = n;
  for (size_t i = end - n; i < end; ++i) {
    hash = (hash ^ static_cast<uint32_t>(tokens_[i])) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  std::vector<uint32_t>& ends = ends_[n - kLeastMatch];
  size_t slot = hash & (ends.size() - 1);
  while (ends[slot] != 0 && Common(ends[slot], end) < n) slot = (slot + 1) & (ends.size() - 1);
  return ends[slot];
}

NgramLookup::Match NgramLookup::Find() {
  for (uint32_t n = kIndexedMatch; n >= kLeastMatch; --n) {
    if (tokens_.size() <= n) continue;
    const uint32_t end = Slot(tokens_.size(), n);
    if (end != 0) return {Common(end, tokens_.size()), end};
  }
  return {};
}

std::vector<int32_t> NgramLookup::Following(const Match& match, size_t count) const {
  CHECK(match.length > 0 && match.next < tokens_.size());
  const size_t period = tokens_.size() - match.next;
  std::vector<int32_t> following;
  following.reserve(count);
  for (size_t i = 0; i < count; ++i) following.push_back(tokens_[match.next + i % period]);
  return following;
}

}  // namespace efedllm
