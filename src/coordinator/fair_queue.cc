#include "coordinator/fair_queue.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace efedllm {

void FairQueue::Push(std::shared_ptr<Sequence> sequence) {
  if (!served_.contains(sequence->owner())) {
    uint64_t least = 0;
    if (!served_.empty()) {
      least = std::min_element(served_.begin(), served_.end(), [](const auto& a, const auto& b) {
                return a.second < b.second;
              })->second;
    }
    served_[sequence->owner()] = least;
  }
  const auto later = std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& other) {
    return other->id().v > sequence->id().v;
  });
  waiting_.insert(later, std::move(sequence));
}

std::vector<std::shared_ptr<Sequence>>::const_iterator FairQueue::Best() const {
  // min_element takes the first, that is the oldest, of equals.
  return std::min_element(waiting_.begin(), waiting_.end(), [this](const auto& a, const auto& b) {
    return std::make_tuple(-a->priority(), served_.at(a->owner())) <
           std::make_tuple(-b->priority(), served_.at(b->owner()));
  });
}

const std::shared_ptr<Sequence>* FairQueue::Front() const {
  return waiting_.empty() ? nullptr : &*Best();
}

std::shared_ptr<Sequence> FairQueue::Pop() {
  const auto best = Best();
  std::shared_ptr<Sequence> sequence = *best;
  waiting_.erase(best);
  return sequence;
}

std::vector<std::shared_ptr<Sequence>> FairQueue::Take(
    const std::function<bool(const Sequence&)>& which) {
  std::vector<std::shared_ptr<Sequence>> taken;
  std::erase_if(waiting_, [&](const auto& sequence) {
    if (!which(*sequence)) return false;
    taken.push_back(sequence);
    return true;
  });
  return taken;
}

void FairQueue::Charge(const std::string& owner, uint64_t rows) {
  const auto served = served_.find(owner);
  if (served != served_.end()) served->second += rows;
}

void FairQueue::Forget(const std::function<bool(const std::string& owner)>& runs) {
  std::erase_if(served_, [&](const auto& entry) {
    const auto waits = [&](const auto& s) { return s->owner() == entry.first; };
    return !runs(entry.first) && std::none_of(waiting_.begin(), waiting_.end(), waits);
  });
}

}  // namespace efedllm
