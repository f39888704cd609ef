#include "cluster/step_planner.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace efedllm {
namespace {

// Chunks that are worth comparing. Below the least, a step reads the weights for too little work.
constexpr std::array<uint32_t, 11> kChunks = {16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512};
constexpr uint32_t kUnmeasuredChunk = 64;
constexpr uint32_t kChunkGrain = 8;  // of those beside decodes
// A token beside a prompt's chunk comes after at most so many times the usual gap.
constexpr double kMostGap = 2.3;
// More micro-batches must win by so much, for what is measured is noisy; smaller chunks by less:
// they let others in sooner.
constexpr double kClearWin = 0.95;
constexpr double kSmallWin = 0.98;

uint32_t CeilDivide(uint64_t a, uint64_t b) { return static_cast<uint32_t>((a + b - 1) / b); }

// A round of `groups` micro-batches: each sequence gets one token.
double Round(const ChainTimes& times, size_t decoding, size_t groups) {
  const uint32_t rows = CeilDivide(decoding, groups);
  return std::max(static_cast<double>(groups) * times.Interval(rows, rows), times.Pass(rows, rows));
}

size_t MicroBatches(size_t decoding, const StepRules& rules, const ChainTimes& times) {
  const size_t least = std::clamp<size_t>(decoding, 1, rules.stages);
  if (!times.known() || decoding == 0) return least;
  size_t best = least;
  for (size_t groups = least + 1; groups <= std::min(decoding, rules.max_in_flight); ++groups) {
    // One more group that makes none of them smaller only adds to the round.
    if (CeilDivide(decoding, groups) == CeilDivide(decoding, groups - 1)) continue;
    if (Round(times, decoding, groups) < kClearWin * Round(times, decoding, best)) best = groups;
  }
  return best;
}

// Steps of so many rows that are under way when the first comes back. A quarter of a step's wait is
// cheaper than one more step in front of everybody.
size_t Depth(const ChainTimes& times, const StepRules& rules, uint32_t rows, uint32_t head_rows) {
  const double interval = times.Interval(rows, head_rows);
  if (interval <= 0) return rules.stages;
  const double depth = std::ceil(times.Pass(rows, head_rows) / interval - 0.25);
  return static_cast<size_t>(std::clamp(depth, static_cast<double>(rules.stages),
                                        static_cast<double>(rules.max_in_flight)));
}

uint32_t ChunkAlone(uint64_t prompt_rows, const StepRules& rules, const ChainTimes& times) {
  const auto time = [&](uint32_t chunk) {
    const uint32_t rows = static_cast<uint32_t>(std::min<uint64_t>(chunk, prompt_rows));
    return times.Pass(rows, 0) + (CeilDivide(prompt_rows, chunk) - 1) * times.Interval(rows, 0);
  };
  uint32_t best = rules.max_tokens;
  for (auto chunk = kChunks.rbegin(); chunk != kChunks.rend(); ++chunk) {
    if (*chunk < best && time(*chunk) < kSmallWin * time(best)) best = *chunk;
  }
  return best;
}

uint32_t ChunkBesideDecodes(uint32_t decodes, double most_gap, uint32_t most,
                            const StepRules& rules, const ChainTimes& times) {
  uint32_t best = std::min(kChunks[0], most);
  for (uint32_t chunk = best; chunk <= most; chunk += kChunkGrain) {
    const uint32_t rows = decodes + chunk;
    const double gap = std::max(
        static_cast<double>(Depth(times, rules, rows, decodes)) * times.Interval(rows, decodes),
        times.Pass(rows, decodes));
    if (gap <= most_gap) best = chunk;
  }
  return best;
}

}  // namespace

StepShape ShapeSteps(const StepDemand& demand, const StepRules& rules, const ChainTimes& times) {
  StepShape shape;
  const size_t groups = MicroBatches(demand.decoding, rules, times);
  shape.in_flight = groups;
  shape.decodes = std::max<uint32_t>(CeilDivide(demand.decoding, groups), 1);
  if (demand.prompt_rows == 0) return shape;
  if (!times.known()) {
    shape.in_flight = rules.stages;
    shape.prompt_rows =
        rules.stages == 1 ? rules.max_tokens : std::min(kUnmeasuredChunk, rules.max_tokens);
    return shape;
  }
  shape.prompt_rows = ChunkAlone(demand.prompt_rows, rules, times);
  const uint32_t decodes = demand.decoding == 0 ? 0 : shape.decodes;
  if (decodes > 0) {
    shape.prompt_rows = ChunkBesideDecodes(
        decodes, kMostGap * Round(times, demand.decoding, groups), shape.prompt_rows, rules, times);
  }
  shape.in_flight = std::max(groups, Depth(times, rules, decodes + shape.prompt_rows, decodes));
  return shape;
}

std::vector<PlannedSpan> PlanStep(absl::Span<const SequenceWork> running, const StepRules& rules,
                                  const StepShape& shape) {
  std::vector<size_t> decodes;
  for (size_t i = 0; i < running.size(); ++i) {
    if (running[i].decodes()) decodes.push_back(i);
  }
  std::stable_sort(decodes.begin(), decodes.end(),
                   [&](size_t a, size_t b) { return running[a].last_step < running[b].last_step; });
  decodes.resize(
      std::min<size_t>({decodes.size(), shape.decodes, rules.max_tokens, rules.max_spans}));
  std::vector<PlannedSpan> spans;
  uint32_t room = rules.max_tokens - static_cast<uint32_t>(decodes.size());
  for (const size_t i : decodes) {
    const uint32_t drafts = std::min(running[i].drafts, room);
    spans.push_back({i, 1 + drafts});
    room -= drafts;
  }

  room = std::min(room, shape.prompt_rows);
  for (size_t i = 0; i < running.size() && room > 0 && spans.size() < rules.max_spans; ++i) {
    if (running[i].known - running[i].submitted < 2) continue;
    const uint32_t tokens = std::min(running[i].known - running[i].submitted, room);
    spans.push_back({i, tokens});
    room -= tokens;
  }
  return spans;
}

}  // namespace efedllm
