#include "common/thread_team.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "common/check.h"

namespace efedllm {
namespace {

// Spinning (some tens of microseconds) bridges the gaps between the loops of a layer; a longer wait
// sleeps, so that an idle daemon takes no CPU.
constexpr int kSpins = 1000;

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

}  // namespace

// A helper that sees a new generation enters the loop if it is still open, and counts itself in and
// out. The caller closes the loop when the chunks are taken, and waits for those inside: body and
// chunks change only while the loop is closed and empty.
struct ThreadTeam::Shared {
  static constexpr uint32_t kOpen = 1u << 31;

  std::atomic<uint32_t> state{0};       // kOpen, and how many helpers are inside
  std::atomic<uint32_t> generation{0};  // of loops; also counts up to stop
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  size_t chunks = 0;
  const absl::FunctionRef<void(size_t)>* body = nullptr;
  std::vector<std::thread> helpers;

  void TakeChunks() {
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) (*body)(i);
  }

  bool Enter() {
    uint32_t seen = state.load(std::memory_order_relaxed);
    while ((seen & kOpen) != 0) {
      if (state.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }

  uint32_t AwaitOther(uint32_t seen) {
    for (int spin = 0; spin < kSpins; ++spin) {
      const uint32_t now = generation.load(std::memory_order_acquire);
      if (now != seen) return now;
      Relax();
    }
    generation.wait(seen, std::memory_order_acquire);
    return generation.load(std::memory_order_acquire);
  }

  void Help() {
    for (uint32_t seen = 0; !stop.load(std::memory_order_relaxed); seen = AwaitOther(seen)) {
      if (!Enter()) continue;
      TakeChunks();
      state.fetch_sub(1, std::memory_order_release);
    }
  }

  void Announce() {
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
  }

  void CloseAndAwaitHelpers() {
    uint32_t seen = state.fetch_and(~kOpen, std::memory_order_acquire) & ~kOpen;
    for (int spin = 0; seen != 0; ++spin) {
      // A helper that lost its core mid-chunk may need ours.
      if (spin < kSpins) {
        Relax();
      } else {
        std::this_thread::yield();
      }
      seen = state.load(std::memory_order_acquire);
    }
  }
};

ThreadTeam::ThreadTeam(int threads) : threads_(threads), shared_(std::make_unique<Shared>()) {
  CHECK(threads >= 0);
  for (int i = 1; i < threads; ++i) {
    shared_->helpers.emplace_back([shared = shared_.get()] { shared->Help(); });
  }
}

ThreadTeam::~ThreadTeam() {
  shared_->stop.store(true, std::memory_order_relaxed);
  shared_->Announce();
  for (std::thread& helper : shared_->helpers) helper.join();
}

void ThreadTeam::ParallelFor(size_t chunks, absl::FunctionRef<void(size_t chunk)> body) {
  if (chunks <= 1 || shared_->helpers.empty()) {
    for (size_t i = 0; i < chunks; ++i) body(i);
    return;
  }
  Shared& shared = *shared_;
  shared.body = &body;
  shared.chunks = chunks;
  shared.next.store(0, std::memory_order_relaxed);
  shared.state.store(Shared::kOpen, std::memory_order_release);
  shared.Announce();
  shared.TakeChunks();
  shared.CloseAndAwaitHelpers();
}

}  // namespace efedllm
