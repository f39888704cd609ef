// The machine's roof for decoding: how fast threads read memory that no cache holds.
//   stream_bench [threads [MiB]]  ->  {"threads": 2, "read_bytes_per_second": 2.5e+10}
// Weights lie in memory like this one's: large pages where the system gives them.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "common/thread_team.h"

namespace efedllm {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
constexpr int kRuns = 7;
constexpr size_t kAhead = 1024;  // words: as far as the kernels ask for weights

// Eight sums, for as many loads in flight as vectors give.
uint64_t Sum(const uint64_t* p, size_t n) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < n; i += 8) {
    __builtin_prefetch(p + i + kAhead, 0, 2);
    for (size_t j = 0; j < 8; ++j) sums[j] += p[i + j];
  }
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

int Run(int threads, size_t mebibytes) {
  const size_t bytes = mebibytes * kChunk;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::fprintf(stderr, "no %zu MiB of memory; ask for less\n", mebibytes);
    return 1;
  }
  madvise(memory, bytes, MADV_HUGEPAGE);
  std::memset(memory, 1, bytes);
  const auto* data = static_cast<const uint8_t*>(memory);
  ThreadTeam team(threads);
  std::vector<uint64_t> sums(mebibytes);
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    team.ParallelFor(mebibytes, [&](size_t i) {
      sums[i] = Sum(reinterpret_cast<const uint64_t*>(data + i * kChunk), kChunk / 8);
    });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(bytes) / took.count());
  }
  const bool read = std::all_of(sums.begin(), sums.end(), [](uint64_t sum) { return sum != 0; });
  std::printf("{\"threads\": %d, \"read_bytes_per_second\": %.4g}\n", threads, read ? best : 0.0);
  return 0;
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const int mebibytes = argc > 2 ? std::atoi(argv[2]) : 768;
  if (threads < 1 || threads > 1024 || mebibytes < 1) {
    std::fprintf(stderr, "usage: stream_bench [threads [MiB]]\n");
    return 2;
  }
  return efedllm::Run(threads, static_cast<size_t>(mebibytes));
}
