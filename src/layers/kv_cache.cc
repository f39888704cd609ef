#include "layers/kv_cache.h"

#include <sys/mman.h>

#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace efedllm {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 46;  // of address space

uint64_t PagesFor(uint64_t positions) {
  return (positions + KvCache::kPagePositions - 1) / KvCache::kPagePositions;
}

}  // namespace

uint64_t KvShape::BytesPerToken() const {
  return uint64_t{2} * layers * kv_heads * KvBytes(type, head_dim);
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(const KvShape& shape, uint64_t tokens) {
  if (shape.head_dim % KvBlockValues(shape.type) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("keys and values can't be kept as ", KvTypeName(shape.type), ": heads of ",
                     shape.head_dim, " dimensions are no multiple of ", KvBlockValues(shape.type)));
  }
  const uint64_t per_token = shape.BytesPerToken();
  if (per_token == 0 || tokens == 0) {
    return absl::InvalidArgumentError("a KV cache needs layers and room for at least one token");
  }
  if (tokens > kMaxBytes / kPagePositions ||
      PagesFor(tokens) * kPagePositions > kMaxBytes / per_token) {
    return absl::InvalidArgumentError(
        absl::StrCat("a KV cache of ", tokens, " tokens at ", per_token, " bytes is too large"));
  }
  const uint64_t pages = PagesFor(tokens);
  const uint64_t bytes = pages * kPagePositions * per_token;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the system refuses ", bytes, " bytes of address space for the KV cache"));
  }
  // Long contexts touch many megabytes in pieces of some kilobytes: with small pages, half of the
  // time goes into address translation. Best effort.
  madvise(memory, bytes, MADV_HUGEPAGE);
  return std::unique_ptr<KvCache>(new KvCache(shape, static_cast<uint8_t*>(memory), bytes, pages));
}

KvCache::KvCache(const KvShape& shape, uint8_t* memory, uint64_t bytes, uint64_t pages)
    : shape_(shape), memory_(memory), bytes_(bytes), total_pages_(pages) {
  free_.reserve(pages);
  for (uint64_t page = pages; page > 0; --page) free_.push_back(page - 1);
}

KvCache::~KvCache() { munmap(memory_, bytes_); }

absl::Status KvCache::Extend(absl::Span<const KvSpan> spans) {
  absl::flat_hash_set<SequenceId> seen;
  uint64_t wanted = 0, returned = 0;
  for (const KvSpan& span : spans) {
    if (!seen.insert(span.sequence).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", span.sequence.v, " stands twice in a step"));
    }
    if (span.first_position > length(span.sequence)) {
      return absl::InvalidArgumentError(
          absl::StrCat("sequence ", span.sequence.v, " has KV up to position ",
                       length(span.sequence), ", so a span can't begin at ", span.first_position));
    }
    const uint64_t end = uint64_t{span.first_position} + span.tokens;
    if (end > std::numeric_limits<uint32_t>::max()) {
      return absl::InvalidArgumentError("a position does not fit 32 bits");
    }
    wanted += PagesFor(end);
    returned += pages(span.sequence).size();
  }
  if (wanted > free_.size() + returned) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no KV memory left: ", wanted - returned, " more pages of ", kPagePositions,
                     " tokens are needed, ", free_.size(), " of ", total_pages_, " are free"));
  }
  // Shrink first: one span's pages may be what another needs.
  for (const KvSpan& span : spans) Truncate(span.sequence, span.first_position + span.tokens);
  for (const KvSpan& span : spans) {
    Resize(sequences_[span.sequence], span.first_position + span.tokens);
  }
  return absl::OkStatus();
}

void KvCache::Resize(Sequence& sequence, uint32_t length) {
  const uint64_t page_bytes = bytes_ / total_pages_;
  const uint64_t pages = PagesFor(length);
  while (sequence.pages.size() > pages) {
    free_.push_back(static_cast<uint64_t>(sequence.pages.back() - memory_) / page_bytes);
    sequence.pages.pop_back();
  }
  while (sequence.pages.size() < pages) {
    CHECK(!free_.empty());
    sequence.pages.push_back(memory_ + free_.back() * page_bytes);
    free_.pop_back();
  }
  sequence.length = length;
}

void KvCache::Truncate(SequenceId sequence, uint32_t length) {
  const auto it = sequences_.find(sequence);
  if (it != sequences_.end() && it->second.length > length) Resize(it->second, length);
}

void KvCache::Release(SequenceId sequence) {
  Truncate(sequence, 0);
  sequences_.erase(sequence);
}

uint32_t KvCache::length(SequenceId sequence) const {
  const auto it = sequences_.find(sequence);
  return it == sequences_.end() ? 0 : it->second.length;
}

absl::Span<uint8_t* const> KvCache::pages(SequenceId sequence) const {
  const auto it = sequences_.find(sequence);
  if (it == sequences_.end()) return {};
  return it->second.pages;
}

size_t KvCache::k_offset(uint32_t layer, uint32_t kv_head) const {
  const size_t area = kPagePositions * KvBytes(shape_.type, shape_.head_dim);
  return (size_t{layer} * shape_.kv_heads + kv_head) * 2 * area;
}

size_t KvCache::v_offset(uint32_t layer, uint32_t kv_head) const {
  return k_offset(layer, kv_head) + kPagePositions * KvBytes(shape_.type, shape_.head_dim);
}

}  // namespace efedllm
