// A chain's KV memory, page by page, as the coordinator knows it without asking: all nodes of a
// chain do the same steps in the same order. Pages of finished prompts and answers stay, as a radix
// tree over blocks of tokens, until their room is needed; a sequence that begins with the same
// tokens takes them over (RadixAttention: Zheng et al., "SGLang", 2023, section 3).
#ifndef EFEDLLM_COORDINATOR_PREFIX_CACHE_H_
#define EFEDLLM_COORDINATOR_PREFIX_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "cluster/step.h"
#include "common/ids.h"

namespace efedllm {

// Numbers for sequences, none twice: what nodes claim of a sequence is compared over epochs and
// chains. Not thread-safe.
class SequenceIds {
 public:
  SequenceId Next() { return SequenceId{++last_}; }

 private:
  uint64_t last_ = 0;
};

// Not thread-safe. One for each chain and epoch. What it decides must reach the nodes in the order
// in which it was decided: see TakeTrims.
class PrefixCache {
  struct Block;

 public:
  // pages: of KvCache::kPagePositions positions each. ids is borrowed.
  PrefixCache(uint64_t pages, SequenceIds& ids);
  ~PrefixCache();

  // What a running sequence holds: a path of shared blocks from the root, and pages of its own.
  class Lease {
   public:
    SequenceId id() const { return id_; }        // the sequence's name on the nodes
    uint32_t cached() const { return cached_; }  // positions that it need not compute
    bool begun() const { return begun_; }        // a step has told the nodes of it

   private:
    friend class PrefixCache;
    SequenceId id_;
    Block* tip_ = nullptr;     // the last block of its path; null: the root
    Block* pinned_ = nullptr;  // whose first tokens go on where the path ends; until it is forked
    uint32_t cached_ = 0;
    uint64_t own_pages_ = 0;
    bool publishes_ = true;  // false: others have published the same meanwhile
    bool begun_ = false;
  };

  // Takes the longest known prefix of tokens, but never all of them: the last one's logits are
  // wanted. share: false: nothing is taken, and nothing will be published.
  Lease Begin(absl::Span<const int32_t> tokens, bool share);
  // A sequence that the nodes hold already, with so many positions, from an epoch before. Its pages
  // count as its own. False: there is no room for them. What other sequences the nodes may hold is
  // for the caller to make them forget, and to trim this one to `length`.
  bool Adopt(SequenceId id, uint32_t length, bool share, Lease& lease);
  // The nodes keep only so many positions of it.
  void TrimTo(const Lease& lease, uint32_t length) { Trim(lease.id_, length); }
  // Looks again, for a lease that has not begun: more may be known now.
  void Rematch(Lease& lease, absl::Span<const int32_t> tokens);
  // How much of tokens is known, in whole pages, and how much of that leases hold already.
  struct Known {
    uint64_t pages = 0;
    uint64_t held = 0;
  };
  Known Look(absl::Span<const int32_t> tokens) const;
  // Pages of the lease, its own and shared ones.
  static uint64_t Pages(const Lease& lease);

  // Makes room for positions [0, length): evicts what nobody holds, the least recently used first.
  // False: there is not enough, and the lease is as before, but for a partial block that it would
  // have copied (cached() shrinks).
  bool Grow(Lease& lease, uint32_t length);
  // The fork with which a lease that takes over a prefix begins on the nodes; in the step of its
  // first span. From here on it has begun.
  std::optional<SequenceFork> Start(Lease& lease);
  // That step is on its way.
  void Unpin(Lease& lease);
  // tokens were computed, or will be by the steps submitted so far: their whole blocks are others'
  // to use from the next step on.
  void Publish(Lease& lease, absl::Span<const int32_t> tokens);
  // The sequence ends here, or makes room; tokens as in Publish. What it published stays. The lease
  // is empty then.
  void End(Lease& lease, absl::Span<const int32_t> tokens);
  // Forgets all that no lease holds: something went wrong on the nodes. lost: trims that they may
  // not have seen.
  void Clear(absl::Span<const SequenceTrim> lost);

  // What the nodes have to forget, for the next step; at most `most`. Pages count as free once they
  // stand in here, so a step that uses new pages must not leave any behind.
  std::vector<SequenceTrim> TakeTrims(size_t most);
  size_t pending_trims() const { return trims_.size(); }

  uint64_t pages() const { return pages_; }
  uint64_t used_pages() const { return own_pages_ + blocks_; }
  // That leases hold; all others can be evicted.
  uint64_t held_pages() const { return own_pages_ + locked_blocks_; }

 private:
  struct Match {
    Block* tip;               // whole blocks
    Block* partial;           // may be null
    uint32_t partial_tokens;  // of it
  };

  Match Find(absl::Span<const int32_t> tokens) const;
  void Take(Lease& lease, absl::Span<const int32_t> tokens);
  void Lock(Block* block, int by);
  void Touch(Block* block);
  void Track(Block* block);
  Block* Append(Lease& lease, absl::Span<const int32_t> tokens);
  bool EvictOne();
  void Trim(SequenceId sequence, uint32_t length);

  const uint64_t pages_;
  SequenceIds& ids_;
  std::unique_ptr<Block> root_;
  uint64_t blocks_ = 0;         // in the tree, without the root
  uint64_t locked_blocks_ = 0;  // of these, on a lease's path
  uint64_t own_pages_ = 0;      // of all leases
  uint64_t clock_ = 0;
  std::set<std::pair<uint64_t, Block*>> evictable_;  // leaves that nobody holds, by last use
  std::map<SequenceId, uint32_t> trims_;             // sequence, length that stays
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_PREFIX_CACHE_H_
