#include "cluster/layer_cost.h"

#include <algorithm>
#include <cmath>

namespace efedllm {
namespace {

// A rate that was not measured counts as this: far below any machine, and no division by zero.
constexpr double kLeastRate = 1e6;

uint64_t SaturatingAdd(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }
uint64_t SaturatingMultiply(uint64_t a, uint64_t b) {
  return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

// Reading weights and multiplying overlap in part: measured on steps of 1 to 512 rows, the norm of
// exponent 3/2 lies between their maximum and their sum as the kernels do.
double Together(double read, double compute) {
  const double sum = read * std::sqrt(read) + compute * std::sqrt(compute);
  return std::cbrt(sum * sum);
}

}  // namespace

double FactorAt(const std::vector<SpeedFactor>& measured, double rows) {
  if (measured.empty()) return 1;
  if (rows <= measured.front().rows) return measured.front().factor;
  for (size_t i = 1; i < measured.size(); ++i) {
    const SpeedFactor& below = measured[i - 1];
    const SpeedFactor& above = measured[i];
    if (rows > above.rows) continue;
    const double share = std::log(rows / below.rows) / std::log(above.rows / below.rows);
    return below.factor + share * (above.factor - below.factor);
  }
  return measured.back().factor;
}

LayerSums::LayerSums(const std::vector<LayerCost>& layers) : sums_(layers.size() + 1) {
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerCost& layer = layers[i];
    sums_[i + 1].weight_bytes = SaturatingAdd(sums_[i].weight_bytes, layer.weight_bytes);
    sums_[i + 1].kv_bytes_per_token =
        SaturatingAdd(sums_[i].kv_bytes_per_token, layer.kv_bytes_per_token);
    // Two bytes a parameter or more are floats; less is quantized and multiplied as int8.
    const bool quantized = layer.weight_bytes < layer.flops_per_token;
    const auto flops = static_cast<double>(layer.flops_per_token);
    sums_[i + 1].int8_ops = sums_[i].int8_ops + (quantized ? flops : 0);
    sums_[i + 1].f32_flops = sums_[i].f32_flops + (quantized ? 0 : flops);
  }
}

uint64_t LayerSums::WeightBytes(LayerRange range) const {
  return sums_[range.last].weight_bytes - sums_[range.first].weight_bytes;
}

uint64_t LayerSums::Bytes(LayerRange range, uint64_t kv_tokens) const {
  const uint64_t kv = sums_[range.last].kv_bytes_per_token - sums_[range.first].kv_bytes_per_token;
  return SaturatingAdd(WeightBytes(range), SaturatingMultiply(kv, kv_tokens));
}

double LayerSums::Seconds(const NodeProfile& profile, LayerRange range, double rows) const {
  const Sum& last = sums_[range.last];
  const Sum& first = sums_[range.first];
  const double read = static_cast<double>(last.weight_bytes - first.weight_bytes) /
                      std::max(profile.read_bytes_per_second, kLeastRate);
  const double compute =
      (last.int8_ops - first.int8_ops) / std::max(profile.int8_ops_per_second, kLeastRate) +
      (last.f32_flops - first.f32_flops) / std::max(profile.f32_flops_per_second, kLeastRate);
  return Together(read, rows * compute);
}

}  // namespace efedllm
