// Keys and values of a stage's sequences, in pages of 64 positions of all the stage's layers.
#ifndef EFEDLLM_LAYERS_KV_CACHE_H_
#define EFEDLLM_LAYERS_KV_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/ids.h"
#include "tensor/kv_type.h"

namespace efedllm {

// tokens consecutive positions of one sequence, beginning at first_position.
struct KvSpan {
  SequenceId sequence;
  uint32_t first_position = 0;
  uint32_t tokens = 0;
};

// The positions [0, length) of a sequence, which have KV.
struct KvExtent {
  SequenceId sequence;
  uint32_t length = 0;

  friend bool operator==(const KvExtent&, const KvExtent&) = default;
};

struct KvShape {
  uint32_t layers = 0;  // of the stage
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;  // a multiple of KvBlockValues(type)
  KvType type = KvType::kF32;
  // Values of the stage's output that are kept for each position, for replays (cluster/step.h); 0:
  // none.
  uint32_t output_dim = 0;

  // Of one position: keys and values of all layers, and the kept output.
  uint64_t BytesPerToken() const;
};

// Sequences may share pages that are full (Fork); one that is written is its sequence's alone.
// A page holds for each layer and kv head: K as [head_dim][64] (lanes are positions), then V as
// [64][head_dim]; see kernels/kv_layout.h for types with scales. Behind all of them stand the kept
// outputs, [64][output_dim] f32, which share their page's fate: forks, copies and cuts. Not
// thread-safe, except that different threads may write different heads or positions of reserved
// pages. Memory is reserved at once, but takes RAM only when first written.
class KvCache {
 public:
  static constexpr uint32_t kPagePositions = 64;

  // tokens: room for this many positions, rounded up to whole pages. InvalidArgument: nothing, more
  // than the address space holds, or heads that the type's blocks don't divide; ResourceExhausted:
  // the kernel refuses.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(const KvShape& shape, uint64_t tokens);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  const KvShape& shape() const { return shape_; }

  // Makes each span's sequence exactly first_position + tokens long: positions from first_position
  // on are forgotten, then room is made (their contents are whatever was there, until written).
  // A page that others share is copied if kept positions stand in it. All spans or none:
  // InvalidArgument if a first_position is beyond its sequence's end or a sequence stands twice;
  // ResourceExhausted if pages run out; nothing has changed then.
  absl::Status Extend(absl::Span<const KvSpan> spans);

  // A new sequence that begins with the parent's first tokens: full pages are shared, a last one
  // that is not full is copied. InvalidArgument: the child is known, the parent shorter, or there
  // are no tokens; ResourceExhausted: no page for the copy; nothing has changed then.
  absl::Status Fork(SequenceId child, SequenceId parent, uint32_t tokens);

  // Shortens a sequence to its first `length` positions, and forgets it if that is 0; no effect if
  // it is shorter or unknown.
  void Truncate(SequenceId sequence, uint32_t length);

  // What positions [first, first + tokens) hold, appended to out: tokens * BytesPerToken() bytes,
  // whole pages as they lie in memory. OutOfRange: the sequence has not all of them.
  absl::Status Export(SequenceId sequence, uint32_t first, uint32_t tokens, std::string& out) const;

  // Appends to the sequence, which ends at `first`, positions that a cache of the same shape has
  // exported. bytes may come from a peer: any bytes of the right size are taken, so that values may
  // be wrong, or not finite. InvalidArgument: another size, or the sequence ends elsewhere;
  // ResourceExhausted: no page left; nothing has changed then.
  absl::Status Import(SequenceId sequence, uint32_t first, uint32_t tokens,
                      absl::string_view bytes);

  uint32_t length(SequenceId sequence) const;  // positions; 0 if unknown
  std::vector<KvExtent> extents() const;       // of all sequences, in ascending order of their ids
  uint64_t sequences() const { return sequences_.size(); }
  // In whole pages; a shared one counts once.
  uint64_t tokens_used() const { return (total_pages_ - free_.size()) * kPagePositions; }
  uint64_t tokens_total() const { return total_pages_ * kPagePositions; }

  // The sequence's pages in order of position; borrowed until the next change. Empty if unknown.
  absl::Span<uint8_t* const> pages(SequenceId sequence) const;
  // Where K and V of a layer's head begin in every page, in bytes.
  size_t k_offset(uint32_t layer, uint32_t kv_head) const;
  size_t v_offset(uint32_t layer, uint32_t kv_head) const;
  // The kept output of a position that the sequence has: [output_dim], borrowed as its page is.
  absl::Span<float> output(SequenceId sequence, uint32_t position);
  absl::Span<const float> output(SequenceId sequence, uint32_t position) const;

 private:
  struct Sequence {
    uint32_t length = 0;
    std::vector<uint8_t*> pages;
  };

  KvCache(const KvShape& shape, uint8_t* memory, uint64_t bytes, uint64_t pages);
  absl::Status CheckSpans(absl::Span<const KvSpan> spans) const;
  absl::Status CheckRoom(absl::Span<const KvSpan> spans) const;
  void Shrink(Sequence& sequence, uint32_t length);
  void Grow(Sequence& sequence, uint32_t length);
  size_t output_offset(uint32_t position) const;
  template <class Visit>
  void ForEachRun(uint32_t slot, uint32_t count, Visit visit) const;
  uint8_t* TakePage();
  uint8_t* CopyOf(const uint8_t* page);
  void ReturnPage(uint8_t* page);  // once for each sequence that has it
  uint32_t& owners(const uint8_t* page);
  uint32_t owners(const uint8_t* page) const;

  // Constant after construction.
  const KvShape shape_;
  uint8_t* const memory_;
  const uint64_t bytes_;
  const uint64_t total_pages_;
  const uint64_t page_bytes_;

  std::vector<uint32_t> owners_;  // of each page: how many sequences have it
  std::vector<uint64_t> free_;    // page numbers, the next one last
  absl::flat_hash_map<SequenceId, Sequence> sequences_;
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KV_CACHE_H_
