// Kernels against the machine's roof: GB/s of weights for one row, GOP/s for many, and a layer of
// the 1.1B llama shape. Weights are larger than any cache. Run with --benchmark_filter and nothing
// else on the machine.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "common/random.h"
#include "layers/attention.h"
#include "layers/compute.h"
#include "layers/decoder_layer.h"
#include "layers/linear.h"
#include "tensor/blocks.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

constexpr size_t kRows = 5632, kCols = 2048;
constexpr size_t kWeightBytes = size_t{768} << 20;

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
    memory_.reset(new (std::align_val_t{64}) uint8_t[count() * bytes_]);
    PackMatrix(dtype, kRows, kCols, gguf.data(), memory_.get());
    for (size_t i = 1; i < count(); ++i) {
      std::memcpy(memory_.get() + i * bytes_, memory_.get(), bytes_);
    }
    dtype_ = dtype;
  }
  size_t count() const { return kWeightBytes / bytes_; }
  size_t bytes() const { return bytes_; }
  PackedMatrix view(size_t i) const { return {dtype_, kRows, kCols, memory_.get() + i * bytes_}; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  const size_t bytes_;
  DType dtype_ = DType::kF32;
  std::unique_ptr<uint8_t[], Free> memory_;
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

void BM_Read(benchmark::State& state) {
  Compute compute = *Compute::Create(static_cast<int>(state.range(0)), "auto");
  constexpr size_t kChunk = 1 << 20;
  static std::vector<uint64_t> data(kWeightBytes / 8, 1);
  std::vector<uint64_t> sums(kWeightBytes / kChunk);
  for (auto _ : state) {
    compute.team->ParallelFor(sums.size(), [&](size_t i) {
      const uint64_t* p = data.data() + i * kChunk / 8;
      sums[i] = std::accumulate(p, p + kChunk / 8, uint64_t{0});
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kWeightBytes));
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

// Attention of one layer of the 1.1B shape: `tokens` tokens from position `first` on.
void BM_Attend(benchmark::State& state) {
  constexpr uint32_t kHeads = 32, kKvHeads = 4, kHeadDim = 64;
  Compute compute = *Compute::Create(static_cast<int>(state.range(0)), "auto");
  const auto tokens = static_cast<uint32_t>(state.range(1));
  const auto first = static_cast<uint32_t>(state.range(2));
  auto kv = *KvCache::Create({.layers = 1, .kv_heads = kKvHeads, .head_dim = kHeadDim}, 8192);
  const KvSpan span{SequenceId{1}, first, tokens};
  Matrix q(tokens, kHeads * kHeadDim), out = q;
  if (!kv->Extend({{SequenceId{1}, 0, first + tokens}}).ok()) std::abort();
  for (auto _ : state) {
    Attend(compute, {span}, 0, q.ref(), *kv, out.ref());
    benchmark::DoNotOptimize(out.row(0));
  }
  state.counters["OP"] =
      benchmark::Counter(4.0 * kHeads * kHeadDim * tokens * (first + tokens / 2.0) *
                             static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}

// The 22 layers of the 1.1B shape over `tokens` tokens from position 256 on. All weights are some
// small number.
void BM_Layers(benchmark::State& state, DType dtype) {
  constexpr uint32_t kLayers = 22, kFirst = 256;
  constexpr LayerShape kShape{
      .d_model = 2048,
      .heads = 32,
      .kv_heads = 4,
      .head_dim = 64,
      .attention_scale = 0.125f,
      .norm_epsilon = 1e-5f,
      .feed_forward = {.d_model = 2048, .d_ffn = 5632, .activation = SiluMul}};
  constexpr size_t kShapes[][2] = {{2048, 2048}, {256, 2048},  {256, 2048}, {2048, 2048},
                                   {5632, 2048}, {5632, 2048}, {2048, 5632}};
  size_t bytes = 0;
  for (const auto& [rows, cols] : kShapes) bytes += PackedMatrixBytes(dtype, rows, cols);
  struct Free {
    void operator()(uint8_t* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  const std::unique_ptr<uint8_t[], Free> memory(new (std::align_val_t{64})
                                                    uint8_t[kLayers * bytes]);
  std::memset(memory.get(), 0x11, kLayers * bytes);
  const std::vector<float> norm(2048, 1.0f);
  std::vector<LayerWeights> layers;
  const uint8_t* next = memory.get();
  for (uint32_t i = 0; i < kLayers; ++i) {
    PackedMatrix m[7];
    for (size_t j = 0; j < 7; ++j) {
      m[j] = {dtype, kShapes[j][0], kShapes[j][1], next};
      next += PackedMatrixBytes(dtype, m[j].rows, m[j].cols);
    }
    LayerWeights weights;
    weights.attention_norm = weights.ffn_norm = norm;
    weights.query.w = m[0];
    weights.key.w = m[1];
    weights.value.w = m[2];
    weights.output.w = m[3];
    weights.feed_forward = {{}, {m[4], {}}, {m[5], {}}, {m[6], {}}};
    layers.push_back(weights);
  }
  Compute compute = *Compute::Create(static_cast<int>(state.range(0)), "auto");
  DecoderLayer layer(kShape, {Rope(RopeFrequencies(64, 10000, {}), false, 1)}, compute);
  const auto tokens = static_cast<uint32_t>(state.range(1));
  auto kv = *KvCache::Create({.layers = kLayers, .kv_heads = 4, .head_dim = 64}, 1024);
  if (!kv->Extend({{SequenceId{1}, 0, kFirst + tokens}}).ok()) std::abort();
  Matrix hidden(tokens, kShape.d_model);
  for (auto _ : state) {
    std::fill_n(hidden.row(0), hidden.ref().span().size(), 0.5f);
    layer.BeginStep({{SequenceId{1}, kFirst, tokens}});
    for (uint32_t i = 0; i < kLayers; ++i) layer.Run(layers[i], i, *kv, hidden.ref());
  }
  const auto runs = static_cast<double>(state.iterations());
  state.counters["tokens"] = benchmark::Counter(tokens * runs, benchmark::Counter::kIsRate);
  state.counters["weights"] =
      benchmark::Counter(static_cast<double>(kLayers * bytes) * runs, benchmark::Counter::kIsRate);
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
        ->ArgsProduct({{1, 2}, {1, 4, 16, 128}})
        ->UseRealTime()
        ->MinTime(0.3);
  }
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) {
  using namespace efedllm;
  benchmark::RegisterBenchmark("Read", BM_Read)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();
  benchmark::RegisterBenchmark("Attend", BM_Attend)
      ->ArgNames({"threads", "tokens", "first"})
      ->ArgsProduct({{1, 2}, {1}, {512, 4096}})
      ->ArgsProduct({{1, 2}, {256}, {256}})
      ->UseRealTime();
  for (const auto& [name, dtype] :
       {std::pair{"Layers/Q8_0", DType::kQ8_0}, std::pair{"Layers/Q4_0", DType::kQ4_0}}) {
    benchmark::RegisterBenchmark(name,
                                 [dtype = dtype](benchmark::State& s) { BM_Layers(s, dtype); })
        ->ArgNames({"threads", "tokens"})
        ->ArgsProduct({{1, 2}, {1, 8, 256}})
        ->UseRealTime();
  }
  if (Avx2Kernels() != nullptr) RegisterLinear("avx2");
  if (Avx512Kernels() != nullptr) RegisterLinear("avx512");
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
