#include "layers/kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "layers/kernels/kv_layout.h"

namespace efedllm {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 46;  // of address space
constexpr uint32_t kMaxDimension = 1u << 16;       // sums of products stay far from overflow

uint64_t PagesFor(uint64_t positions) {
  return (positions + KvCache::kPagePositions - 1) / KvCache::kPagePositions;
}

}  // namespace

uint64_t KvShape::BytesPerToken() const {
  return uint64_t{2} * layers * kv_heads * KvBytes(type, head_dim) +
         uint64_t{output_dim} * sizeof(float);
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(const KvShape& shape, uint64_t tokens) {
  if (shape.head_dim % KvBlockValues(shape.type) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("keys and values can't be kept as ", KvTypeName(shape.type), ": heads of ",
                     shape.head_dim, " dimensions are no multiple of ", KvBlockValues(shape.type)));
  }
  if (shape.layers == 0 || shape.kv_heads == 0 || shape.head_dim == 0 || tokens == 0) {
    return absl::InvalidArgumentError("a KV cache needs layers and room for at least one token");
  }
  if (std::max({shape.layers, shape.kv_heads, shape.head_dim}) > kMaxDimension) {
    return absl::InvalidArgumentError("a KV cache of that many layers or dimensions is too large");
  }
  const uint64_t per_token = shape.BytesPerToken();
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
    : shape_(shape),
      memory_(memory),
      bytes_(bytes),
      total_pages_(pages),
      page_bytes_(bytes / pages),
      owners_(pages, 0) {
  free_.reserve(pages);
  for (uint64_t page = pages; page > 0; --page) free_.push_back(page - 1);
}

KvCache::~KvCache() { munmap(memory_, bytes_); }

absl::Status KvCache::Extend(absl::Span<const KvSpan> spans) {
  RETURN_IF_ERROR(CheckSpans(spans));
  RETURN_IF_ERROR(CheckRoom(spans));
  // Shrink first: one span's pages may be what another needs.
  for (const KvSpan& span : spans) {
    const auto it = sequences_.find(span.sequence);
    if (it != sequences_.end()) Shrink(it->second, span.first_position);
  }
  for (const KvSpan& span : spans) {
    Grow(sequences_[span.sequence], span.first_position + span.tokens);
  }
  return absl::OkStatus();
}

absl::Status KvCache::CheckSpans(absl::Span<const KvSpan> spans) const {
  absl::flat_hash_set<SequenceId> seen;
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
    if (uint64_t{span.first_position} + span.tokens > std::numeric_limits<uint32_t>::max()) {
      return absl::InvalidArgumentError("a position does not fit 32 bits");
    }
  }
  return absl::OkStatus();
}

// Counts what Extend is going to do: its drops, then page by page its copies and new pages.
absl::Status KvCache::CheckRoom(absl::Span<const KvSpan> spans) const {
  uint64_t wanted = 0, returned = 0;
  absl::flat_hash_map<const uint8_t*, uint32_t> dropped;  // how often
  for (const KvSpan& span : spans) {
    const absl::Span<uint8_t* const> have = pages(span.sequence);
    const uint64_t kept = PagesFor(span.first_position);
    for (uint64_t i = kept; i < have.size(); ++i) {
      if (++dropped[have[i]] == owners(have[i])) ++returned;
    }
    wanted += PagesFor(uint64_t{span.first_position} + span.tokens) - kept;
  }
  for (const KvSpan& span : spans) {
    if (span.first_position % kPagePositions == 0) continue;
    const uint8_t* page = pages(span.sequence)[span.first_position / kPagePositions];
    if (owners(page) == 1) continue;
    if (owners(page) - dropped[page] == 1) continue;
    ++dropped[page];
    ++wanted;
  }
  if (wanted <= free_.size() + returned) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("no KV memory left: ", wanted - returned, " more pages of ", kPagePositions,
                   " tokens are needed, ", free_.size(), " of ", total_pages_, " are free"));
}

absl::Status KvCache::Fork(SequenceId child, SequenceId parent, uint32_t tokens) {
  if (tokens == 0 || tokens > length(parent) || sequences_.contains(child)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sequence ", child.v, " can't begin with ", tokens, " positions of sequence ", parent.v,
        ", which has KV up to position ", length(parent), "; its own ends at ", length(child)));
  }
  const uint64_t shared = tokens / kPagePositions;
  if (shared < PagesFor(tokens) && free_.empty()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "no KV memory left: a page of ", kPagePositions, " tokens is needed, none is free"));
  }
  Sequence& sequence = sequences_[child];  // before the parent's: it may move them
  const Sequence& from = sequences_.find(parent)->second;
  sequence.length = tokens;
  sequence.pages.assign(from.pages.begin(), from.pages.begin() + static_cast<int64_t>(shared));
  for (const uint8_t* page : sequence.pages) ++owners(page);
  if (shared < PagesFor(tokens)) sequence.pages.push_back(CopyOf(from.pages[shared]));
  return absl::OkStatus();
}

void KvCache::Shrink(Sequence& sequence, uint32_t length) {
  while (sequence.pages.size() > PagesFor(length)) {
    ReturnPage(sequence.pages.back());
    sequence.pages.pop_back();
  }
  sequence.length = length;
}

// Room from the sequence's end on, in pages that are its own.
void KvCache::Grow(Sequence& sequence, uint32_t length) {
  if (sequence.length % kPagePositions != 0 && owners(sequence.pages.back()) > 1) {
    uint8_t* const shared = sequence.pages.back();
    sequence.pages.back() = CopyOf(shared);
    ReturnPage(shared);
  }
  while (sequence.pages.size() < PagesFor(length)) sequence.pages.push_back(TakePage());
  sequence.length = length;
}

uint8_t* KvCache::TakePage() {
  CHECK(!free_.empty());
  const uint64_t number = free_.back();
  free_.pop_back();
  owners_[number] = 1;
  return memory_ + number * page_bytes_;
}

uint8_t* KvCache::CopyOf(const uint8_t* page) {
  uint8_t* copy = TakePage();
  std::memcpy(copy, page, page_bytes_);
  return copy;
}

void KvCache::ReturnPage(uint8_t* page) {
  if (--owners(page) == 0) free_.push_back(static_cast<uint64_t>(page - memory_) / page_bytes_);
}

uint32_t& KvCache::owners(const uint8_t* page) {
  return owners_[static_cast<uint64_t>(page - memory_) / page_bytes_];
}

uint32_t KvCache::owners(const uint8_t* page) const {
  return owners_[static_cast<uint64_t>(page - memory_) / page_bytes_];
}

void KvCache::Truncate(SequenceId sequence, uint32_t length) {
  const auto it = sequences_.find(sequence);
  if (it == sequences_.end() || it->second.length < length) return;
  Shrink(it->second, length);
  if (length == 0) sequences_.erase(it);
}

// The pieces of a page that hold the positions in slots [slot, slot + count), as (offset, bytes) in
// the order of the page: what one export writes, and an import reads.
template <class Visit>
void KvCache::ForEachRun(uint32_t slot, uint32_t count, Visit visit) const {
  if (count == kPagePositions) return visit(0, page_bytes_);
  const auto lanes = [&](size_t at, size_t rows, size_t value_bytes) {  // [rows][64]
    for (size_t row = 0; row < rows; ++row) {
      visit(at + (row * kPagePositions + slot) * value_bytes, count * value_bytes);
    }
  };
  const auto rows = [&](size_t at, size_t row_bytes) {  // [64][row_bytes]
    visit(at + slot * row_bytes, count * row_bytes);
  };
  const size_t n = shape_.head_dim, number_bytes = KvNumberBytes(shape_.type);
  const size_t scales = shape_.type == KvType::kQ8_0 ? n / kKvBlock : 0;
  for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
    for (uint32_t head = 0; head < shape_.kv_heads; ++head) {
      const size_t k = k_offset(layer, head), v = v_offset(layer, head);
      lanes(k, n, number_bytes);
      if (scales > 0) lanes(k + KvScalesAt(n), scales, sizeof(uint16_t));
      rows(v, n * number_bytes);
      if (scales > 0) rows(v + KvScalesAt(n), scales * sizeof(uint16_t));
    }
  }
  if (shape_.output_dim > 0) rows(output_offset(0), shape_.output_dim * sizeof(float));
}

absl::Status KvCache::Export(SequenceId sequence, uint32_t first, uint32_t tokens,
                             std::string& out) const {
  const uint64_t end = uint64_t{first} + tokens;
  if (tokens == 0 || end > length(sequence)) {
    return absl::OutOfRangeError(absl::StrCat("sequence ", sequence.v, " has KV up to position ",
                                              length(sequence), ", not of [", first, ", ", end,
                                              ")"));
  }
  out.reserve(out.size() + tokens * shape_.BytesPerToken());
  const absl::Span<uint8_t* const> from = pages(sequence);
  for (uint32_t at = first, count = 0; at < end; at += count) {
    const uint32_t slot = at % kPagePositions;
    count = std::min(static_cast<uint32_t>(end) - at, kPagePositions - slot);
    const auto* page = reinterpret_cast<const char*>(from[at / kPagePositions]);
    ForEachRun(slot, count, [&](size_t offset, size_t bytes) { out.append(page + offset, bytes); });
  }
  return absl::OkStatus();
}

absl::Status KvCache::Import(SequenceId sequence, uint32_t first, uint32_t tokens,
                             absl::string_view bytes) {
  if (tokens == 0 || first != length(sequence)) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", sequence.v, " has KV up to position ", length(sequence), ": ",
                     tokens, " positions from ", first, " on can't be appended"));
  }
  if (bytes.size() != tokens * shape_.BytesPerToken()) {
    return absl::InvalidArgumentError(absl::StrCat(bytes.size(), " bytes are not the KV of ",
                                                   tokens, " positions of ", shape_.BytesPerToken(),
                                                   " bytes"));
  }
  RETURN_IF_ERROR(Extend({{sequence, first, tokens}}));
  const absl::Span<uint8_t* const> to = pages(sequence);
  const char* next = bytes.data();
  for (uint32_t at = first, count = 0; at < first + tokens; at += count) {
    const uint32_t slot = at % kPagePositions;
    count = std::min(first + tokens - at, kPagePositions - slot);
    ForEachRun(slot, count, [&](size_t offset, size_t size) {
      std::memcpy(to[at / kPagePositions] + offset, next, size);
      next += size;
    });
  }
  return absl::OkStatus();
}

std::vector<KvExtent> KvCache::extents() const {
  std::vector<KvExtent> all;
  all.reserve(sequences_.size());
  for (const auto& [id, sequence] : sequences_) all.push_back({id, sequence.length});
  std::sort(all.begin(), all.end(),
            [](const KvExtent& a, const KvExtent& b) { return a.sequence < b.sequence; });
  return all;
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

size_t KvCache::output_offset(uint32_t position) const {
  return k_offset(shape_.layers, 0) +
         size_t{position % kPagePositions} * shape_.output_dim * sizeof(float);
}

absl::Span<const float> KvCache::output(SequenceId sequence, uint32_t position) const {
  const uint8_t* page = pages(sequence)[position / kPagePositions];
  return {reinterpret_cast<const float*>(page + output_offset(position)), shape_.output_dim};
}

absl::Span<float> KvCache::output(SequenceId sequence, uint32_t position) {
  uint8_t* page = pages(sequence)[position / kPagePositions];
  return {reinterpret_cast<float*>(page + output_offset(position)), shape_.output_dim};
}

}  // namespace efedllm
