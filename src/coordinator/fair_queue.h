// Who runs next: of the highest priority that waits, the owner who was served least, and of his
// sequences the oldest (virtual token counters: Sheng et al., "Fairness in Serving Large Language
// Models", OSDI 2024).
#ifndef EFEDLLM_COORDINATOR_FAIR_QUEUE_H_
#define EFEDLLM_COORDINATOR_FAIR_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/sequence.h"

namespace efedllm {

// Not thread-safe. An owner with nothing here and nothing running has no credit and no debt: who
// comes back starts level with the least served of those that are here.
class FairQueue {
 public:
  // One that ran already stands where its age puts it, in front of those that came later.
  void Push(std::shared_ptr<Sequence> sequence);
  // The next one; nullptr: nobody waits.
  const std::shared_ptr<Sequence>* Front() const;
  std::shared_ptr<Sequence> Pop();
  // Takes out all for which this holds.
  std::vector<std::shared_ptr<Sequence>> Take(const std::function<bool(const Sequence&)>& which);

  // Rows were computed for him.
  void Charge(const std::string& owner, uint64_t rows);
  // Forgets what owners were served, but for those that wait here or run.
  void Forget(const std::function<bool(const std::string& owner)>& runs);

  size_t size() const { return waiting_.size(); }

 private:
  std::vector<std::shared_ptr<Sequence>>::const_iterator Best() const;

  std::vector<std::shared_ptr<Sequence>> waiting_;  // in the order of arrival
  std::map<std::string, uint64_t> served_;          // by owner, in rows
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_FAIR_QUEUE_H_
