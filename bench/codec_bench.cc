// Nanoseconds per row to encode and to decode, for each codec, one row alone and a block of 512.
//
//   codec_bench [--benchmark_filter=klt.*2048]
#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/check.h"
#include "common/random.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "svd/magnitude_tables.h"
#include "svd/transform_rounding.h"
#include "tensor/matrix.h"

namespace efedllm {
namespace {

constexpr size_t kRows = 512;
constexpr int kRounds = 24;
constexpr double kFallingOctaves = 5;  // from the first coefficient's spread to the last one's

// A boundary whose principal directions are those of a Hadamard matrix: one of any size is there
// at once.
struct World {
  std::shared_ptr<const BoundaryBasis> basis;
  Matrix rows;
};

Eigen::MatrixXd Hadamard(Eigen::Index n) {
  Eigen::MatrixXd h(n, n);
  for (Eigen::Index i = 0; i < n; ++i) {
    for (Eigen::Index j = 0; j < n; ++j) {
      h(i, j) = (__builtin_popcountll(static_cast<uint64_t>(i & j)) % 2 == 0 ? 1 : -1) /
                std::sqrt(static_cast<double>(n));
    }
  }
  return h;
}

World MakeWorld(size_t d) {
  const auto n = static_cast<Eigen::Index>(d);
  Random random(1);
  Eigen::VectorXd sigma(n);
  for (Eigen::Index j = 0; j < n; ++j) {
    sigma(j) = std::exp2(-kFallingOctaves * static_cast<double>(j) / static_cast<double>(n));
  }
  sigma /= std::sqrt(sigma.squaredNorm() / static_cast<double>(n));
  Eigen::MatrixXd coefficients(kRows, n);
  for (Eigen::Index j = 0; j < n; ++j) {
    for (Eigen::Index r = 0; r < coefficients.rows(); ++r) {
      const double radius = std::sqrt(-2 * std::log(1 - random.Uniform()));
      coefficients(r, j) = sigma(j) * radius * std::cos(6.283185307179586 * random.Uniform());
    }
  }
  const Eigen::MatrixXd directions = Hadamard(n);
  const Eigen::MatrixXd rows = coefficients * directions;

  BoundaryBasis basis;
  basis.d_model = static_cast<uint32_t>(d);
  basis.mean.assign(d, 0.0f);
  basis.largest_scale = 8;
  basis.first_scale = 126;
  basis.scale_frequency.assign(5, kProbabilityOne / 8);
  for (Eigen::Index j = 0; j < n; ++j) {
    basis.klt.log_sigma.push_back(static_cast<int16_t>(std::lrint(64 * std::log2(sigma(j)))));
    basis.scalar.log_sigma.push_back(0);
  }
  RoundTransform(directions, 1, EntryBytesFor(d), basis);
  FitMagnitudeTables(coefficients.cast<float>(), basis.klt);
  FitMagnitudeTables(rows.cast<float>(), basis.scalar);
  World world{std::make_shared<const BoundaryBasis>(std::move(basis)), Matrix(kRows, d)};
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t i = 0; i < d; ++i) {
      world.rows.row(r)[i] =
          static_cast<float>(rows(static_cast<Eigen::Index>(r), static_cast<Eigen::Index>(i)));
    }
  }
  return world;
}

const World& WorldOf(size_t d) {
  static std::map<size_t, World>& worlds = *new std::map<size_t, World>;
  const auto found = worlds.find(d);
  return found != worlds.end() ? found->second : worlds.emplace(d, MakeWorld(d)).first->second;
}

// A token's codec works on what the stage's weights have driven out of the caches.
void EvictCaches() {
  static std::vector<uint8_t>& weights = *new std::vector<uint8_t>(size_t{64} << 20, 1);
  uint64_t sum = 0;
  for (size_t i = 0; i < weights.size(); i += 64) sum += ++weights[i];
  benchmark::DoNotOptimize(sum);
}

void Run(benchmark::State& state, CodecSetting setting, size_t d, size_t rows, bool decode) {
  const World& world = WorldOf(d);
  ActivationCodec codec(d, world.basis);
  const ConstMatrixRef in{world.rows.ref().data, rows, d};
  Matrix out(rows, d);
  std::string bytes;
  codec.Encode(setting, in, bytes);
  const std::string encoded = bytes;
  for (auto _ : state) {
    if (rows == 1) {
      state.PauseTiming();
      EvictCaches();
      state.ResumeTiming();
    }
    if (decode) {
      const absl::Status status = codec.Decode(
          setting, {reinterpret_cast<const uint8_t*>(encoded.data()), encoded.size()}, out.ref());
      CHECK(status.ok());
    } else {
      bytes.clear();
      benchmark::DoNotOptimize(codec.Encode(setting, in, bytes));
    }
  }
  const auto per_row = static_cast<double>(rows);
  state.counters["ns_per_row"] = benchmark::Counter(
      per_row * 1e-9, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  state.counters["bytes_per_row"] = static_cast<double>(encoded.size()) / per_row;
}

void RegisterAll() {
  for (const size_t d : {64, 256, 2048}) {
    for (const CodecSetting setting :
         {CodecSetting{CodecId::kF32, 0}, CodecSetting{CodecId::kF16, 0},
          CodecSetting{CodecId::kInt8, 0}, CodecSetting{CodecId::kScalar, 40},
          CodecSetting{CodecId::kKlt, 40}}) {
      for (const size_t rows : {size_t{1}, kRows}) {
        for (const bool decode : {false, true}) {
          const std::string name = std::string(CodecName(setting.id)) +
                                   (decode ? "/decode/" : "/encode/") + std::to_string(d) + "/" +
                                   std::to_string(rows);
          benchmark::RegisterBenchmark(name.c_str(), Run, setting, d, rows, decode)
              ->Iterations(rows == 1 ? kRounds : kRounds / 4);
        }
      }
    }
  }
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  efedllm::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
