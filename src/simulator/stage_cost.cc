#include "simulator/stage_cost.h"

#include <algorithm>
#include <cmath>

namespace efedllm {
namespace {

constexpr uint32_t kAttentionRows = 32;  // that share one pass over the KV
constexpr uint32_t kHeadRows = 32;       // whose logits the scheduler holds at once
// A node's rate is that of a kernel on a matrix in its caches. Whole models reach about half of it:
// row operations, scales, and weights that come from memory (docs/benchmarks.md).
constexpr double kShareOfPeak = 0.5;
constexpr double kChoiceSecondsPerLogit = 1.5e-9;  // penalties, maximum, draw

struct LayerWeights {
  double dense = 0;   // that every token uses
  double expert = 0;  // of one expert
};

LayerWeights WeightsOf(const SimModel& model) {
  const double d = model.d_model;
  const double attention = 2 * d * model.head_dim * (model.heads + model.kv_heads);
  const double ffn = 3 * d * model.d_ffn;
  if (model.experts == 0) return {attention + ffn, 0};
  return {attention + d * model.experts, ffn};
}

double Rate(const SimModel& model, const SimNode& node) {
  // As the planner: two bytes a weight or more are floats.
  const NodeProfile& profile = node.profile;
  return kShareOfPeak *
         (model.bytes_per_weight < 2 ? profile.int8_ops_per_second : profile.f32_flops_per_second);
}

}  // namespace

void StepWork::AddSpan(uint32_t first_position, uint32_t tokens) {
  const uint64_t n = tokens;
  rows += tokens;
  ++spans;
  kv_read += (n + kAttentionRows - 1) / kAttentionRows * (first_position + n);
  attended += n * first_position + n * (n + 1) / 2;
}

std::vector<LayerCost> SimLayerCosts(const SimModel& model) {
  const LayerWeights weights = WeightsOf(model);
  LayerCost cost;
  cost.weight_bytes = static_cast<uint64_t>((weights.dense + weights.expert * model.experts) *
                                            model.bytes_per_weight);
  cost.flops_per_token =
      static_cast<uint64_t>(2 * (weights.dense + weights.expert * model.experts_used));
  cost.kv_bytes_per_token = KvBytes(model.kv_type, uint64_t{2} * model.kv_heads * model.head_dim);
  return std::vector<LayerCost>(model.layers, cost);
}

LayerCost SimHeadCost(const SimModel& model) {
  const double weights = static_cast<double>(model.vocab) * model.d_model;
  return {static_cast<uint64_t>(weights * model.bytes_per_weight),
          static_cast<uint64_t>(2 * weights), 0};
}

StageCost StageCost::OfLayers(const SimModel& model, const SimNode& node, uint32_t layers) {
  StageCost cost(model, node);
  const LayerWeights weights = WeightsOf(model);
  cost.layers_ = layers;
  cost.dense_bytes_ = layers * weights.dense * model.bytes_per_weight;
  cost.expert_bytes_ = layers * weights.expert * model.bytes_per_weight;
  cost.ops_per_row_ = layers * 2 * (weights.dense + weights.expert * model.experts_used);
  cost.rate_ = Rate(model, node);
  return cost;
}

StageCost StageCost::OfHead(const SimModel& model, const SimNode& coordinator) {
  StageCost cost(model, coordinator);
  cost.layers_ = model.layers;  // measured times are the head's as a whole
  const double weights = static_cast<double>(model.vocab) * model.d_model;
  cost.dense_bytes_ = weights * model.bytes_per_weight;
  cost.ops_per_row_ = 2 * weights;
  cost.rate_ = Rate(model, coordinator);
  return cost;
}

double StageCost::MeasuredSeconds(uint32_t rows) const {
  const std::vector<MeasuredTime>& times = node_.times;
  const double share = layers_ / model_.layers;
  size_t next = 1;
  while (next + 1 < times.size() && times[next].rows < rows) ++next;
  const MeasuredTime& a = times[next - 1];
  const MeasuredTime& b = times[next];
  const double slope = (b.seconds - a.seconds) / (b.rows - a.rows);
  return share * std::max(a.seconds + slope * (static_cast<double>(rows) - a.rows), 0.0);
}

double StageCost::MatrixSeconds(uint32_t rows) const {
  if (rows == 0) return 0;
  if (!node_.times.empty()) return MeasuredSeconds(rows);
  double bytes = dense_bytes_;
  if (model_.experts > 0 && expert_bytes_ > 0) {
    // Experts that at least one row is sent to, where all are equally likely.
    const double unused =
        std::pow(1 - static_cast<double>(model_.experts_used) / model_.experts, rows);
    bytes += expert_bytes_ * model_.experts * (1 - unused);
  }
  // A single row is computed while its weights come in. Further rows add their products, the more
  // so since blocks of several rows don't overlap well with the reading.
  const double read = bytes / node_.profile.read_bytes_per_second;
  return std::max(read, ops_per_row_ / rate_) + (rows - 1) * ops_per_row_ / rate_;
}

double StageCost::LayerSeconds(const StepWork& work) const {
  const double kv_bytes =
      static_cast<double>(KvBytes(model_.kv_type, uint64_t{2} * model_.kv_heads * model_.head_dim));
  const double read =
      static_cast<double>(work.kv_read) * layers_ * kv_bytes / node_.profile.read_bytes_per_second;
  const double compute = static_cast<double>(work.attended) * layers_ * 4 * model_.heads *
                         model_.head_dim / (kShareOfPeak * node_.profile.f32_flops_per_second);
  return MatrixSeconds(work.rows) + std::max(read, compute);
}

double StageCost::HeadSeconds(uint32_t rows) const {
  const uint32_t full = rows / kHeadRows;
  double seconds = full * MatrixSeconds(kHeadRows) + MatrixSeconds(rows % kHeadRows);
  if (node_.times.empty())
    seconds += rows * static_cast<double>(model_.vocab) * kChoiceSecondsPerLogit;
  return seconds;
}

}  // namespace efedllm
