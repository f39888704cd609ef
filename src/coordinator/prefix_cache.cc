#include "coordinator/prefix_cache.h"

#include <algorithm>

#include "common/check.h"
#include "layers/kv_cache.h"

namespace efedllm {
namespace {

constexpr uint32_t kBlock = KvCache::kPagePositions;

uint64_t PagesFor(uint32_t positions) { return (uint64_t{positions} + kBlock - 1) / kBlock; }

size_t CommonPrefix(absl::Span<const int32_t> a, absl::Span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

}  // namespace

// One page: kBlock tokens, or fewer in a leaf with which a sequence ended.
struct PrefixCache::Block {
  std::vector<int32_t> tokens;
  Block* parent = nullptr;
  std::vector<std::unique_ptr<Block>> children;
  SequenceId holder;           // the sequence on the nodes whose page this is; its KV reaches `end`
  bool holders_first = false;  // those before it belong to another holder
  uint32_t end = 0;            // position behind its last token
  int locks = 0;               // leases whose path goes through it, or that pin it
  uint64_t used = 0;
};

PrefixCache::PrefixCache(uint64_t pages, SequenceIds& ids)
    : pages_(pages), ids_(ids), root_(std::make_unique<Block>()) {}

PrefixCache::~PrefixCache() = default;

PrefixCache::Match PrefixCache::Find(absl::Span<const int32_t> tokens) const {
  if (!tokens.empty()) tokens.remove_suffix(1);
  Match match{root_.get(), nullptr, 0};
  while (true) {
    const Block* next = nullptr;
    match.partial = nullptr;
    match.partial_tokens = 0;
    for (const auto& child : match.tip->children) {
      const size_t common = CommonPrefix(child->tokens, tokens);
      if (common == kBlock) next = child.get();
      if (common > match.partial_tokens) {
        match.partial = child.get();
        match.partial_tokens = static_cast<uint32_t>(common);
      }
    }
    if (next == nullptr) return match;
    match.tip = const_cast<Block*>(next);
    tokens.remove_prefix(kBlock);
  }
}

PrefixCache::Known PrefixCache::Look(absl::Span<const int32_t> tokens) const {
  Known known;
  for (const Block* block = Find(tokens).tip; block != root_.get(); block = block->parent) {
    ++known.pages;
    known.held += block->locks > 0;
  }
  return known;
}

uint64_t PrefixCache::Pages(const Lease& lease) {
  return lease.tip_->end / kBlock + lease.own_pages_;
}

void PrefixCache::Take(Lease& lease, absl::Span<const int32_t> tokens) {
  const Match match = Find(tokens);
  lease.tip_ = match.tip;
  lease.pinned_ = match.partial;
  lease.cached_ = match.tip->end + match.partial_tokens;
  Touch(match.partial != nullptr ? match.partial : match.tip);
  Lock(lease.tip_, +1);
  if (lease.pinned_ != nullptr) Lock(lease.pinned_, +1);
}

PrefixCache::Lease PrefixCache::Begin(absl::Span<const int32_t> tokens, bool share) {
  Lease lease;
  lease.id_ = ids_.Next();
  lease.publishes_ = share;
  lease.tip_ = root_.get();
  if (share) Take(lease, tokens);
  return lease;
}

bool PrefixCache::Adopt(SequenceId id, uint32_t length, bool share, Lease& lease) {
  lease = Lease();
  lease.id_ = id;
  lease.publishes_ = share;
  lease.tip_ = root_.get();
  lease.begun_ = true;
  if (Grow(lease, length)) return true;
  lease = Lease();
  return false;
}

void PrefixCache::Rematch(Lease& lease, absl::Span<const int32_t> tokens) {
  CHECK(!lease.begun_);
  if (!lease.publishes_) return;
  Unpin(lease);
  Lock(lease.tip_, -1);
  Take(lease, tokens);
}

bool PrefixCache::Grow(Lease& lease, uint32_t length) {
  const uint64_t wanted = PagesFor(length) - lease.tip_->end / kBlock;
  while (wanted > lease.own_pages_ && used_pages() + wanted - lease.own_pages_ > pages_) {
    if (EvictOne()) continue;
    Unpin(lease);  // it may be what stands in the way
    if (!lease.begun_) lease.cached_ = lease.tip_->end;
    return false;
  }
  own_pages_ = own_pages_ - lease.own_pages_ + wanted;
  lease.own_pages_ = wanted;
  return true;
}

std::optional<SequenceFork> PrefixCache::Start(Lease& lease) {
  CHECK(!lease.begun_);
  lease.begun_ = true;
  if (lease.cached_ == 0) return std::nullopt;
  const Block* last = lease.pinned_ != nullptr ? lease.pinned_ : lease.tip_;
  return SequenceFork{lease.id_, last->holder, lease.cached_};
}

void PrefixCache::Unpin(Lease& lease) {
  if (lease.pinned_ == nullptr) return;
  Lock(lease.pinned_, -1);
  lease.pinned_ = nullptr;
}

PrefixCache::Block* PrefixCache::Append(Lease& lease, absl::Span<const int32_t> tokens) {
  auto block = std::make_unique<Block>();
  block->tokens.assign(tokens.begin(), tokens.end());
  block->parent = lease.tip_;
  block->holder = lease.id_;
  block->holders_first = lease.tip_->holder != lease.id_;
  block->end = lease.tip_->end + static_cast<uint32_t>(tokens.size());
  block->used = ++clock_;
  Block* added = block.get();
  lease.tip_->children.push_back(std::move(block));
  ++blocks_;
  --own_pages_;
  --lease.own_pages_;
  // The path is one block longer: what is locked above stays so.
  added->locks = 1;
  ++locked_blocks_;
  lease.tip_ = added;
  return added;
}

void PrefixCache::Publish(Lease& lease, absl::Span<const int32_t> tokens) {
  while (lease.publishes_ && lease.tip_->end + kBlock <= tokens.size()) {
    const auto next = tokens.subspan(lease.tip_->end, kBlock);
    for (const auto& child : lease.tip_->children) {
      if (CommonPrefix(child->tokens, next) == kBlock) lease.publishes_ = false;
    }
    if (lease.publishes_) Append(lease, next);
  }
}

void PrefixCache::End(Lease& lease, absl::Span<const int32_t> tokens) {
  if (lease.tip_ == nullptr) return;
  Unpin(lease);
  if (lease.begun_) {
    Publish(lease, tokens);
    const auto rest = tokens.subspan(std::min<size_t>(lease.tip_->end, tokens.size()));
    // Behind it others can't go on, but they can copy it.
    if (lease.publishes_ && !rest.empty()) {
      bool known = false;
      for (const auto& child : lease.tip_->children) {
        known = known || CommonPrefix(child->tokens, rest) == rest.size();
      }
      if (!known) Append(lease, rest);
    }
    Trim(lease.id_, lease.tip_->holder == lease.id_ ? lease.tip_->end : 0);
  }
  own_pages_ -= lease.own_pages_;
  Touch(lease.tip_);
  Lock(lease.tip_, -1);
  lease = Lease();
}

void PrefixCache::Clear(absl::Span<const SequenceTrim> lost) {
  for (const SequenceTrim& trim : lost) Trim(trim.sequence, trim.length);
  while (EvictOne()) {
  }
}

std::vector<SequenceTrim> PrefixCache::TakeTrims(size_t most) {
  std::vector<SequenceTrim> taken;
  while (!trims_.empty() && taken.size() < most) {
    const auto first = trims_.begin();
    taken.push_back({first->first, first->second});
    trims_.erase(first);
  }
  return taken;
}

// The path from the root to the block, or with a lease more.
void PrefixCache::Lock(Block* block, int by) {
  for (; block != root_.get(); block = block->parent) {
    locked_blocks_ -= block->locks > 0;
    block->locks += by;
    locked_blocks_ += block->locks > 0;
    Track(block);
  }
}

void PrefixCache::Touch(Block* block) {
  for (; block != root_.get(); block = block->parent) {
    evictable_.erase({block->used, block});
    block->used = ++clock_;
    Track(block);
  }
}

void PrefixCache::Track(Block* block) {
  if (block->children.empty() && block->locks == 0) {
    evictable_.insert({block->used, block});
  } else {
    evictable_.erase({block->used, block});
  }
}

bool PrefixCache::EvictOne() {
  if (evictable_.empty()) return false;
  Block* block = evictable_.begin()->second;
  evictable_.erase(evictable_.begin());
  Block* parent = block->parent;
  // What remains of its holder's blocks, if any, ends where this one begins.
  Trim(block->holder, block->holders_first ? 0 : parent->end);
  std::erase_if(parent->children, [&](const auto& child) { return child.get() == block; });
  --blocks_;
  if (parent != root_.get()) Track(parent);
  return true;
}

void PrefixCache::Trim(SequenceId sequence, uint32_t length) {
  const auto [it, added] = trims_.insert({sequence, length});
  if (!added) it->second = std::min(it->second, length);
}

}  // namespace efedllm
