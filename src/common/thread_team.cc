#include "common/thread_team.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>
#include <thread>
#include <vector>

#include "common/check.h"

namespace efedllm {
namespace {

// Spinning bridges the gaps between the loops of a layer; a longer wait sleeps, so that an idle
// daemon takes no CPU.
constexpr std::chrono::microseconds kSpin{50};
constexpr int kRelaxesPerLook = 16;  // at the clock

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// A counter to wait on. Never yields: on a busy machine a yield hands the core to a process of low
// priority for milliseconds, while a sleeper gets it back as soon as it is woken.
class Signal {
 public:
  uint32_t Load() const { return value_.load(std::memory_order_acquire); }
  std::atomic<uint32_t>& value() { return value_; }

  // Returns when the value isn't `seen` any more.
  void AwaitOther(uint32_t seen) {
    const auto start = std::chrono::steady_clock::now();
    do {
      for (int i = 0; i < kRelaxesPerLook; ++i) {
        if (Load() != seen) return;
        Relax();
      }
    } while (std::chrono::steady_clock::now() - start < kSpin);
    // With the order of sleepers_ and value_ the same for all, either Wake sees the sleeper or the
    // kernel sees the new value.
    sleepers_.fetch_add(1);
    while (value_.load() == seen) {
      syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
    }
    sleepers_.fetch_sub(1);
  }

  // After the value has changed (by an operation of sequential consistency).
  void Wake() {
    if (sleepers_.load() > 0) {
      syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
    }
  }

 private:
  std::atomic<uint32_t> value_{0};
  std::atomic<uint32_t> sleepers_{0};
};

}  // namespace

// A helper that sees a new generation enters the loop if it is still open, and counts itself in and
// out. The caller closes the loop when the chunks are taken, and waits for those inside: body and
// shares change only while the loop is closed and empty.
struct ThreadTeam::Shared {
  static constexpr uint32_t kOpen = 1u << 31;

  // The chunks that a thread takes first, in order: neighbours in memory most of the time, which
  // the thread's caches then see coming.
  struct alignas(64) Share {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };

  explicit Shared(size_t threads) : shares(threads) {}

  Signal state;       // kOpen, and how many helpers are inside
  Signal generation;  // of loops; also counts up to stop
  std::atomic<bool> stop{false};
  std::vector<Share> shares;  // the first is the caller's
  const absl::FunctionRef<void(size_t)>* body = nullptr;
  std::vector<std::thread> helpers;

  void Deal(size_t chunks) {
    for (size_t i = 0; i < shares.size(); ++i) {
      shares[i].next.store(i * chunks / shares.size(), std::memory_order_relaxed);
      shares[i].end = (i + 1) * chunks / shares.size();
    }
  }

  // One's own share, then what the others have left.
  void TakeChunks(size_t thread) {
    for (size_t i = 0; i < shares.size(); ++i) {
      Share& share = shares[(thread + i) % shares.size()];
      for (size_t chunk;
           (chunk = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
        (*body)(chunk);
      }
    }
  }

  bool Enter() {
    uint32_t seen = state.value().load(std::memory_order_relaxed);
    while ((seen & kOpen) != 0) {
      if (state.value().compare_exchange_weak(seen, seen + 1, std::memory_order_acquire,
                                              std::memory_order_relaxed)) {
        return true;
      }
    }
    return false;
  }

  void Help(size_t thread) {
    uint32_t seen = 0;
    while (!stop.load(std::memory_order_relaxed)) {
      if (Enter()) {
        TakeChunks(thread);
        state.value().fetch_sub(1);
        state.Wake();
      }
      generation.AwaitOther(seen);
      seen = generation.Load();
    }
  }

  void Announce() {
    generation.value().fetch_add(1);
    generation.Wake();
  }

  void CloseAndAwaitHelpers() {
    uint32_t seen = state.value().fetch_and(~kOpen) & ~kOpen;
    for (; seen != 0; seen = state.Load()) state.AwaitOther(seen);
  }
};

ThreadTeam::ThreadTeam(int threads)
    : threads_(threads), shared_(std::make_unique<Shared>(std::max(1, threads))) {
  CHECK(threads >= 0);
  for (int i = 1; i < threads; ++i) {
    shared_->helpers.emplace_back(
        [shared = shared_.get(), i] { shared->Help(static_cast<size_t>(i)); });
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
  const absl::MutexLock lock(&turn_);
  Shared& shared = *shared_;
  shared.body = &body;
  shared.Deal(chunks);
  shared.state.value().store(Shared::kOpen, std::memory_order_release);
  shared.Announce();
  shared.TakeChunks(0);
  shared.CloseAndAwaitHelpers();
}

}  // namespace efedllm
