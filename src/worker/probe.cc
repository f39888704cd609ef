#include "worker/probe.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "common/machine.h"
#include "layers/linear.h"
#include "layers/packed_matrix.h"
#include "tensor/matrix.h"

namespace efedllm {
namespace {

constexpr absl::Duration kTimePerRate = absl::Milliseconds(200);
constexpr size_t kMostReadBytes = size_t{192} << 20;  // beyond every cache
constexpr size_t kReadChunkBytes = size_t{1} << 20;
constexpr double kMemoryShare = 0.8;

// The best rate that repeated runs reach: what disturbs only ever slows down.
double BestRate(double work_per_run, const std::function<void()>& run) {
  run();  // wakes the threads and fills the caches
  double best = 0;
  const absl::Time end = absl::Now() + kTimePerRate;
  do {
    const absl::Time start = absl::Now();
    run();
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    if (seconds > 0) best = std::max(best, work_per_run / seconds);
  } while (absl::Now() < end);
  return best;
}

double MeasureReading(Compute& compute) {
  const size_t bytes =
      std::clamp<size_t>(AvailableMemoryBytes() / 8, size_t{16} << 20, kMostReadBytes);
  const size_t chunks = bytes / kReadChunkBytes;
  constexpr size_t kWords = kReadChunkBytes / sizeof(uint64_t);
  const auto words = std::make_unique<uint64_t[]>(chunks * kWords);
  std::vector<uint64_t> sums(chunks);
  const double rate = BestRate(static_cast<double>(chunks * kReadChunkBytes), [&] {
    compute.team->ParallelFor(chunks, [&](size_t chunk) {
      const uint64_t* begin = words.get() + chunk * kWords;
      uint64_t sum = 0;
      for (size_t i = 0; i < kWords; ++i) sum += begin[i];
      sums[chunk] += sum;
    });
  });
  // The sums are looked at, so that the reads must happen.
  return std::count(sums.begin(), sums.end(), 0) == static_cast<long>(chunks) ? rate : 0;
}

// Multiply-adds, counted as two, of the many-row kernel on a matrix that stays in the caches.
double MeasureMatmul(Compute& compute, DType dtype) {
  constexpr size_t kTokens = 32;
  constexpr size_t kRows = 512;
  constexpr size_t kCols = 512;
  const uint64_t bytes = PackedMatrixBytes(dtype, kRows, kCols);
  void* memory = nullptr;
  if (posix_memalign(&memory, kPackedAlignment, bytes) != 0) return 0;
  const std::unique_ptr<void, void (*)(void*)> owner(memory, [](void* p) { free(p); });
  std::memset(memory, 0, bytes);
  const PackedMatrix weights{dtype, kRows, kCols, static_cast<const uint8_t*>(memory)};
  Matrix x(kTokens, kCols);
  for (float& value : x.ref().span()) value = 0.5f;
  Matrix y(kTokens, kRows);
  Linear linear(compute);
  return BestRate(2.0 * kTokens * kRows * kCols, [&] {
    linear.Run(x.ref(), {{weights, y.ref()}});
  });
}

}  // namespace

NodeProfile MeasureNode(Compute& compute, uint64_t memory_bytes) {
  NodeProfile profile;
  profile.threads = static_cast<uint32_t>(std::max(compute.team->threads(), 1));
  profile.memory_bytes =
      memory_bytes != 0
          ? memory_bytes
          : static_cast<uint64_t>(static_cast<double>(AvailableMemoryBytes()) * kMemoryShare);
  // A quota stops a process that has used it up, and until then it runs at full speed: so the best
  // rate is not what it has in the long run.
  const double share = std::min(1.0, CpuQuota() / profile.threads);
  profile.read_bytes_per_second = share * MeasureReading(compute);
  profile.int8_ops_per_second = share * MeasureMatmul(compute, DType::kQ8_0);
  profile.f32_flops_per_second = share * MeasureMatmul(compute, DType::kF32);
  return profile;
}

}  // namespace efedllm
