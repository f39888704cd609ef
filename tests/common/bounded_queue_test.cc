#include "common/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace efedllm {
namespace {

using Queue = BoundedQueue<std::unique_ptr<int>>;

TEST(BoundedQueue, KeepsTheOrder) {
  BoundedQueue<int> queue(3);
  for (int i = 0; i < 3; i++) EXPECT_TRUE(queue.TryPush(int{i}));
  for (int i = 0; i < 3; i++) EXPECT_EQ(queue.Pop(absl::ZeroDuration()), i);
  EXPECT_EQ(queue.Pop(absl::ZeroDuration()), std::nullopt);
}

TEST(BoundedQueue, RefusesWhenFullAndLeavesTheItem) {
  Queue queue(1);
  auto first = std::make_unique<int>(1), second = std::make_unique<int>(2);
  EXPECT_TRUE(queue.TryPush(std::move(first)));
  EXPECT_FALSE(queue.TryPush(std::move(second)));
  EXPECT_FALSE(queue.Push(std::move(second), absl::Milliseconds(1)));
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(*second, 2);
  EXPECT_EQ(queue.size(), 1u);
}

TEST(BoundedQueue, CapacityZeroTakesNothing) {
  BoundedQueue<int> queue(0);
  EXPECT_FALSE(queue.TryPush(1));
}

TEST(BoundedQueue, WhatWasPushedBeforeClosingIsStillPopped) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  queue.Close();
  EXPECT_TRUE(queue.closed());
  EXPECT_FALSE(queue.TryPush(2));
  EXPECT_EQ(queue.Pop(absl::InfiniteDuration()), 1);
  EXPECT_EQ(queue.Pop(absl::InfiniteDuration()), std::nullopt);
}

TEST(BoundedQueue, ClosingWakesThoseWhoWait) {
  BoundedQueue<int> empty(1), full(1);
  EXPECT_TRUE(full.TryPush(1));
  std::thread popper([&] { EXPECT_EQ(empty.Pop(absl::InfiniteDuration()), std::nullopt); });
  std::thread pusher([&] { EXPECT_FALSE(full.Push(2, absl::InfiniteDuration())); });
  empty.Close();
  full.Close();
  popper.join();
  pusher.join();
}

TEST(BoundedQueue, LosesAndInventsNothingBetweenThreads) {
  constexpr int kItems = 2000, kThreads = 3;
  BoundedQueue<int> queue(4);
  std::vector<std::thread> threads;
  std::vector<int> seen(
      kItems * kThreads);  // each item is popped by one thread, so each element is written by one
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kItems; i++) {
        ASSERT_TRUE(queue.Push(t * kItems + i, absl::InfiniteDuration()));
      }
    });
    threads.emplace_back([&] {
      for (int i = 0; i < kItems; i++) seen[*queue.Pop(absl::InfiniteDuration())]++;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(seen, std::vector<int>(kItems * kThreads, 1));
  EXPECT_EQ(queue.size(), 0u);
}

}  // namespace
}  // namespace efedllm
