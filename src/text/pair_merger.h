// The heart of byte-pair encoding: of all neighbours that may be merged the best pair is, again and
// again, until none is left. O(n log n).
#ifndef EFEDLLM_TEXT_PAIR_MERGER_H_
#define EFEDLLM_TEXT_PAIR_MERGER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace efedllm {

// What two neighbours become. The lowest cost goes first; of equals, the leftmost.
template <typename Symbol, typename Cost>
struct MergedPair {
  Symbol symbol;
  Cost cost;
};

// Symbols (small, copied) of one text at a time; keeps its memory from one to the next.
template <typename Symbol, typename Cost>
class PairMerger {
 public:
  void Clear() { nodes_.clear(); }
  void Append(Symbol symbol) {
    const int32_t i = static_cast<int32_t>(nodes_.size());
    if (i > 0) nodes_.back().next = i;
    nodes_.push_back({symbol, 1, i - 1, -1});
  }

  // join(left, right) -> std::optional<MergedPair<Symbol, Cost>>; none: they don't merge.
  template <typename Join>
  void Merge(const Join& join) {
    candidates_.clear();
    for (int32_t i = 1; i < static_cast<int32_t>(nodes_.size()); ++i) Propose(join, i - 1, i);
    std::make_heap(candidates_.begin(), candidates_.end());
    while (!candidates_.empty()) {
      std::pop_heap(candidates_.begin(), candidates_.end());
      const Candidate best = candidates_.back();
      candidates_.pop_back();
      Node& left = At(best.left);
      Node& right = At(best.right);
      if (left.size == 0 || right.size == 0 || left.size + right.size != best.size) continue;
      left = {best.symbol, best.size, left.previous, right.next};
      right.size = 0;
      if (left.next >= 0) At(left.next).previous = best.left;
      if (Propose(join, left.previous, best.left)) {
        std::push_heap(candidates_.begin(), candidates_.end());
      }
      if (Propose(join, best.left, left.next)) {
        std::push_heap(candidates_.begin(), candidates_.end());
      }
    }
  }

  // What is left, in order.
  template <typename Visit>
  void ForEach(const Visit& visit) const {
    for (const Node& node : nodes_) {
      if (node.size > 0) visit(node.symbol);
    }
  }

 private:
  struct Node {
    Symbol symbol;
    uint32_t size;     // how many of the first symbols; 0: merged into the one before it
    int32_t previous;  // -1: none
    int32_t next;
  };
  struct Candidate {
    Symbol symbol;
    Cost cost;
    int32_t left;
    int32_t right;
    uint32_t size;  // of both; another sum later means that one has grown, and this is void

    // The heap's top is what goes first.
    bool operator<(const Candidate& other) const {
      return cost > other.cost || (cost == other.cost && left > other.left);
    }
  };

  Node& At(int32_t i) { return nodes_[static_cast<size_t>(i)]; }

  template <typename Join>
  bool Propose(const Join& join, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return false;
    const std::optional<MergedPair<Symbol, Cost>> merged = join(At(left).symbol, At(right).symbol);
    if (!merged.has_value()) return false;
    candidates_.push_back(
        {merged->symbol, merged->cost, left, right, At(left).size + At(right).size});
    return true;
  }

  std::vector<Node> nodes_;
  std::vector<Candidate> candidates_;  // a heap
};

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_PAIR_MERGER_H_
