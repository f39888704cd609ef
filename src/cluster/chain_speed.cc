#include "cluster/chain_speed.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <utility>

namespace efedllm {
namespace {

// The prompt whose speed is predicted, and the chunks that it may come in.
constexpr double kPromptTokens = 512;
constexpr double kChunks[] = {32, 64, 128, 256, 512};
constexpr double kServingChunk = 64;

uint32_t CeilDivide(size_t a, size_t b) { return static_cast<uint32_t>((a + b - 1) / b); }

}  // namespace

double SpeedModel::HeadSeconds(double rows) const {
  if (head_.profile.read_bytes_per_second <= 0) return 0;
  return LayerSums({head_.cost}).Seconds(head_.profile, {0, 1}, rows);
}

double SpeedModel::HopSeconds(const ChainShape& chain, size_t stage, double rows) const {
  const size_t from = stage == 0 ? 0 : chain.nodes[stage - 1] + 1;
  const size_t to = stage == chain.nodes.size() ? 0 : chain.nodes[stage] + 1;
  return network_.HopSeconds(from, to, rows * row_bytes_);
}

double SpeedModel::Interval(const ChainShape& chain, double rows, bool with_head) const {
  double slowest = with_head ? HeadSeconds(rows) : 0;
  for (size_t i = 0; i < chain.nodes.size(); ++i) {
    slowest = std::max(slowest, StageSeconds(chain, i, rows));
  }
  size_t from = 0;
  for (size_t i = 0; i <= chain.nodes.size(); ++i) {
    const size_t to = i == chain.nodes.size() ? 0 : chain.nodes[i] + 1;
    slowest = std::max(slowest, network_.BusySeconds(from, to, rows * row_bytes_));
    from = to;
  }
  return slowest;
}

double SpeedModel::Pass(const ChainShape& chain, double rows) const {
  double sum = HeadSeconds(rows);
  for (size_t i = 0; i < chain.nodes.size(); ++i) sum += StageSeconds(chain, i, rows);
  for (size_t i = 0; i <= chain.nodes.size(); ++i) sum += HopSeconds(chain, i, rows);
  return sum;
}

DecodeShape SpeedModel::Decode(const ChainShape& chain, size_t streams) const {
  streams = std::max<size_t>(streams, 1);
  const size_t stages = chain.nodes.size();
  const size_t least = std::min(stages, streams);
  const size_t most = std::min(4 * stages + 4, streams);
  DecodeShape best;
  uint32_t rows = 0;
  for (size_t count = least; count <= most; ++count) {
    if (CeilDivide(streams, count) == rows) continue;  // one more micro-batch of the same size
    rows = CeilDivide(streams, count);
    const uint32_t batches = CeilDivide(streams, rows);
    const double round = std::max(batches * Interval(chain, rows, true), Pass(chain, rows));
    if (best.round_seconds == 0 || round < best.round_seconds) best = {rows, batches, round};
  }
  return best;
}

PlanPrediction SpeedModel::Predict(const ChainShape& chain, size_t streams) const {
  streams = std::max<size_t>(streams, 1);
  PlanPrediction prediction;
  prediction.tokens_per_second =
      static_cast<double>(streams) / Decode(chain, streams).round_seconds;
  prediction.single_tokens_per_second = 1 / Pass(chain, 1);
  double least = std::numeric_limits<double>::infinity();
  for (const double rows : kChunks) {
    least = std::min(least,
                     (kPromptTokens / rows - 1) * Interval(chain, rows, false) + Pass(chain, rows));
  }
  prediction.prompt_tokens_per_second = kPromptTokens / least;
  return prediction;
}

double SpeedModel::PromptRate(const ChainShape& chain) const {
  return kServingChunk / Interval(chain, kServingChunk, false);
}

std::vector<size_t> SpeedModel::Deal(const std::vector<ChainShape>& chains, size_t streams) const {
  std::vector<size_t> dealt(chains.size());
  if (chains.size() == 1) {
    dealt[0] = streams;
    return dealt;
  }
  using Next = std::pair<double, size_t>;  // the round with one more stream, chain
  std::priority_queue<Next, std::vector<Next>, std::greater<>> queue;
  for (size_t i = 0; i < chains.size(); ++i) {
    queue.push({Decode(chains[i], 1).round_seconds, i});
  }
  for (size_t i = 0; i < streams; ++i) {
    const size_t chain = queue.top().second;
    queue.pop();
    ++dealt[chain];
    queue.push({Decode(chains[chain], dealt[chain] + 1).round_seconds, chain});
  }
  return dealt;
}

}  // namespace efedllm
