// Kernels against the machine's roof (stream_bench reads it): GB/s of weights for one row, GOP/s
// for many. Weights are larger than any cache. Run with --benchmark_filter and nothing else on the
// machine.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "common/random.h"
#include "layers/compute.h"
#include "layers/linear.h"
#include "tensor/blocks.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

constexpr size_t kRows = 5632, kCols = 2048;
constexpr size_t kWeightBytes = size_t{768} << 20;

// Zeros, on large pages where the system gives them, as a model's weights are.
class Memory {
 public:
  explicit Memory(size_t bytes)
      : bytes_(bytes),
        data_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (data_ == MAP_FAILED) std::abort();
    madvise(data_, bytes, MADV_HUGEPAGE);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { munmap(data_, bytes_); }
  uint8_t* get() const { return static_cast<uint8_t*>(data_); }

 private:
  const size_t bytes_;
  void* const data_;
};

// Copies of one matrix with made-up weights, all scales 1/1024, kWeightBytes together.
class Weights {
 public:
  explicit Weights(DType dtype) : bytes_(PackedMatrixBytes(dtype, kRows, kCols)) {
    std::vector<uint8_t> gguf(kRows * RowBytes(dtype, kCols).value());
    Random random(1);
    for (uint8_t& byte : gguf) byte = static_cast<uint8_t>(random.Next() & 0x3f);
    const uint16_t scale = F32ToF16(0x1p-10f);
    for (size_t i = 0; BlockValues(dtype) > 1 && i < gguf.size(); i += BlockBytes(dtype)) {
      const QuantFormat& format = QuantFormatOf(dtype);
      if (HasE8m0(format)) {
        gguf[i] = 118;
      } else {
        std::memcpy(&gguf[i + format.d_offset], &scale, 2);
      }
      if (HasM(format)) std::memcpy(&gguf[i + format.m_offset], &scale, 2);
    }
    memory_ = std::make_unique<Memory>(count() * bytes_);
    PackMatrix(dtype, kRows, kCols, gguf.data(), memory_->get());
    for (size_t i = 1; i < count(); ++i) {
      std::memcpy(memory_->get() + i * bytes_, memory_->get(), bytes_);
    }
    dtype_ = dtype;
  }
  size_t count() const { return kWeightBytes / bytes_; }
  size_t bytes() const { return bytes_; }
  PackedMatrix view(size_t i) const { return {dtype_, kRows, kCols, memory_->get() + i * bytes_}; }

 private:
  const size_t bytes_;
  DType dtype_ = DType::kF32;
  std::unique_ptr<Memory> memory_;
};

// One at a time in memory.
const Weights& WeightsOf(DType dtype) {
  static std::unique_ptr<Weights> held;
  static DType held_dtype;
  if (held == nullptr || held_dtype != dtype) {
    held.reset();
    held = std::make_unique<Weights>(dtype);
    held_dtype = dtype;
  }
  return *held;
}

void BM_Linear(benchmark::State& state, DType dtype, const char* kernels) {
  const Weights& weights = WeightsOf(dtype);
  Compute compute = *Compute::Create(static_cast<int>(state.range(0)), kernels);
  Linear linear(compute);
  const size_t columns = static_cast<size_t>(state.range(1));
  Matrix x(columns, kCols), y(columns, kRows);
  for (float& v : x.ref().span()) v = 0.5f;
  size_t i = 0;
  for (auto _ : state) {
    const PackedMatrix w = weights.view(i++ % weights.count());
    linear.Run(x.ref(), {{w, y.ref()}});
    benchmark::DoNotOptimize(y.row(0));
  }
  const auto runs = static_cast<double>(state.iterations());
  state.counters["weights"] =
      benchmark::Counter(static_cast<double>(weights.bytes()) * runs, benchmark::Counter::kIsRate);
  state.counters["OP"] = benchmark::Counter(
      2.0 * kRows * kCols * static_cast<double>(columns) * runs, benchmark::Counter::kIsRate);
}

void RegisterLinear(const char* kernels) {
  for (const DType dtype :
       {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ2_K,
        DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS,
        DType::kMXFP4, DType::kF16, DType::kBF16, DType::kF32}) {
    const std::string full = absl::StrCat("Linear/", kernels, "/", DTypeName(dtype));
    benchmark::RegisterBenchmark(
        full.c_str(), [dtype, kernels](benchmark::State& s) { BM_Linear(s, dtype, kernels); })
        ->ArgNames({"threads", "columns"})
        ->ArgsProduct({{1, 2}, {1, 8, 64}})
        ->UseRealTime()
        ->MinTime(0.3);
  }
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) {
  using namespace efedllm;
  if (Avx2Kernels() != nullptr) RegisterLinear("avx2");
  if (Avx512Kernels() != nullptr) RegisterLinear("avx512");
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
