// Attention over a long context: GB/s of keys and values, and the arithmetic. Many layers in turn,
// so that their pages come from memory as in a real step. Run with --benchmark_filter and nothing
// else on the machine.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "common/random.h"
#include "layers/attention.h"
#include "layers/compute.h"
#include "layers/kernels/kernel_table.h"

namespace efedllm {
namespace {

struct Shape {
  uint32_t heads, kv_heads, head_dim, layers;
};
constexpr Shape kShapes[] = {{32, 4, 64, 22}, {32, 8, 128, 6}, {9, 3, 64, 30}, {8, 8, 64, 12}};

Matrix RandomMatrix(size_t rows, size_t cols) {
  Random random(1);
  Matrix m(rows, cols);
  for (float& x : m.ref().span()) x = static_cast<float>(random.Uniform() - 0.5);
  return m;
}

// One layer's attention of `tokens` tokens from position `first` on.
void BM_Attend(benchmark::State& state, const char* kernels, const Shape& shape, KvType type) {
  Compute compute = *Compute::Create(static_cast<int>(state.range(0)), kernels);
  const auto tokens = static_cast<uint32_t>(state.range(1));
  const auto first = static_cast<uint32_t>(state.range(2));
  const KvSpan whole{SequenceId{1}, 0, first + tokens}, span{SequenceId{1}, first, tokens};
  auto kv = *KvCache::Create({shape.layers, shape.kv_heads, shape.head_dim, type}, first + tokens);
  if (!kv->Extend({whole}).ok()) std::abort();
  {
    const Matrix k = RandomMatrix(first + tokens, size_t{shape.kv_heads} * shape.head_dim);
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
      StoreKv(compute, {whole}, layer, k.ref(), k.ref(), *kv);
    }
  }
  const Matrix q = RandomMatrix(tokens, size_t{shape.heads} * shape.head_dim);
  Matrix out = q;
  const AttentionOptions options{.scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  uint32_t layer = 0;
  for (auto _ : state) {
    Attend(compute, {span}, layer++ % shape.layers, options, q.ref(), *kv, out.ref());
    benchmark::DoNotOptimize(out.row(0));
  }
  const auto runs = static_cast<double>(state.iterations());
  const double bytes = static_cast<double>(kv->shape().BytesPerToken()) / shape.layers * first;
  state.counters["KV"] = benchmark::Counter(bytes * runs, benchmark::Counter::kIsRate);
  state.counters["FMA"] = benchmark::Counter(
      2.0 * shape.heads * shape.head_dim * tokens * (first + tokens / 2.0) * runs,
      benchmark::Counter::kIsRate);
}

// One layer's keys and values of `tokens` tokens.
void BM_StoreKv(benchmark::State& state, const Shape& shape, KvType type) {
  Compute compute = *Compute::Create(1, "auto");
  const auto tokens = static_cast<uint32_t>(state.range(0));
  const KvSpan span{SequenceId{1}, 0, tokens};
  auto kv = *KvCache::Create({shape.layers, shape.kv_heads, shape.head_dim, type}, tokens);
  if (!kv->Extend({span}).ok()) std::abort();
  const Matrix k = RandomMatrix(tokens, size_t{shape.kv_heads} * shape.head_dim);
  uint32_t layer = 0;
  for (auto _ : state) {
    StoreKv(compute, {span}, layer++ % shape.layers, k.ref(), k.ref(), *kv);
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}

void Register(const std::string& name, const char* kernels, const Shape& shape, KvType type) {
  benchmark::RegisterBenchmark(absl::StrCat("Attend/", kernels, name).c_str(),
                               [=](benchmark::State& s) { BM_Attend(s, kernels, shape, type); })
      ->ArgNames({"threads", "tokens", "first"})
      ->ArgsProduct({{1, 2}, {1, 4}, {8192}})
      ->ArgsProduct({{1}, {128}, {512}})
      ->UseRealTime();
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) {
  using namespace efedllm;
  for (const Shape& shape : kShapes) {
    for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
      const std::string name = absl::StrCat("/", shape.heads, "q", shape.kv_heads, "kv",
                                            shape.head_dim, "/", KvTypeName(type));
      if (Avx2Kernels() != nullptr) Register(name, "avx2", shape, type);
      if (Avx512Kernels() != nullptr) Register(name, "avx512", shape, type);
      benchmark::RegisterBenchmark(("StoreKv" + name).c_str(),
                                   [=](benchmark::State& s) { BM_StoreKv(s, shape, type); })
          ->ArgName("tokens")
          ->Arg(1)
          ->Arg(512);
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
