#include "coordinator/fair_queue.h"

#include "coordinator/serving_world.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

std::shared_ptr<Sequence> Waiting(uint64_t id, const std::string& owner, int priority = 0) {
  GenerationInput input;
  input.prompt = {1};
  input.owner = owner;
  input.priority = priority;
  return std::make_shared<Sequence>(SequenceId{id}, 0, std::move(input),
                                    std::make_shared<Generation>(1), *Seedling().tokenizer);
}

std::string Order(FairQueue& queue, uint64_t rows = 10) {
  std::string order;
  while (queue.Front() != nullptr) {
    const std::shared_ptr<Sequence> next = queue.Pop();
    queue.Charge(next->owner(), rows);
    order += next->owner() + std::to_string(next->id().v) + " ";
  }
  return order;
}

TEST(FairQueue, OfOneOwnerTheOldestComesFirst) {
  FairQueue queue;
  for (const uint64_t id : {1, 2, 3}) queue.Push(Waiting(id, "a"));
  EXPECT_EQ(Order(queue), "a1 a2 a3 ");
}

TEST(FairQueue, OwnersTakeTurnsByWhatTheyWereServed) {
  FairQueue queue;
  for (const uint64_t id : {1, 2, 3}) queue.Push(Waiting(id, "a"));
  for (const uint64_t id : {4, 5}) queue.Push(Waiting(id, "b"));
  EXPECT_EQ(Order(queue), "a1 b4 a2 b5 a3 ");
}

TEST(FairQueue, PriorityGoesBeforeFairness) {
  FairQueue queue;
  queue.Push(Waiting(1, "a"));
  queue.Push(Waiting(2, "b"));
  queue.Push(Waiting(3, "a", 1));
  queue.Push(Waiting(4, "a", -1));
  EXPECT_EQ(Order(queue), "a3 b2 a1 a4 ");
}

TEST(FairQueue, WhoComesLaterHasNoCredit) {
  FairQueue queue;
  queue.Push(Waiting(1, "a"));
  queue.Charge("a", 1000);
  for (const uint64_t id : {2, 3, 4}) queue.Push(Waiting(id, "b"));
  queue.Push(Waiting(5, "a"));
  EXPECT_EQ(Order(queue), "a1 b2 b3 a5 b4 ") << "b has not saved up 1000 rows";
}

TEST(FairQueue, OneThatComesBackStandsWhereItsAgePutsIt) {
  FairQueue queue;
  queue.Push(Waiting(2, "a"));
  queue.Push(Waiting(3, "a"));
  queue.Push(Waiting(1, "a"));
  EXPECT_EQ(Order(queue), "a1 a2 a3 ");
}

TEST(FairQueue, ForgetsOwnersThatLeft) {
  FairQueue queue;
  queue.Push(Waiting(1, "a"));
  queue.Charge("a", 1000);
  queue.Pop();
  queue.Forget([](const std::string&) { return false; });
  queue.Push(Waiting(2, "b"));
  queue.Push(Waiting(3, "a"));
  EXPECT_EQ(Order(queue), "b2 a3 ") << "a owes nothing any more";
}

}  // namespace
}  // namespace efedllm
