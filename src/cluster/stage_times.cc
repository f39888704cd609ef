#include "cluster/stage_times.h"

#include <algorithm>
#include <cmath>

namespace efedllm {
namespace {

constexpr uint32_t kMemory = 16;  // observations after which the oldest count for little
// One that is far beyond the mean was disturbed by something else.
constexpr double kMostOverMean = 4;
// How fast the least time rises again when a link has become slower.
constexpr double kForget = 0.02;

}  // namespace

size_t RowTimes::BucketOf(uint32_t rows) {
  const double octaves = std::log2(std::max<double>(rows, 1));
  return std::min(static_cast<size_t>(std::lround(4 * octaves)), kBuckets - 1);
}

void RowTimes::Observe(uint32_t rows, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  if (rows == 0 || seconds < 0) return;
  Bucket& bucket = buckets_[BucketOf(rows)];
  if (bucket.count == 0) {
    bucket = {1, static_cast<double>(rows), seconds};
    return;
  }
  bucket.count = std::min(bucket.count + 1, kMemory);
  const double weight = 1.0 / bucket.count;
  bucket.rows += weight * (rows - bucket.rows);
  if (keep_ == Keep::kMean) {
    bucket.seconds += weight * (std::min(seconds, kMostOverMean * bucket.seconds) - bucket.seconds);
  } else if (seconds < bucket.seconds) {
    bucket.seconds = seconds;
  } else {
    bucket.seconds +=
        kForget * (std::min(seconds, kMostOverMean * bucket.seconds) - bucket.seconds);
  }
}

bool RowTimes::known() const {
  return std::any_of(buckets_.begin(), buckets_.end(), [](const Bucket& b) { return b.count > 0; });
}

double RowTimes::Seconds(uint32_t rows) const {
  const Bucket* below = nullptr;  // the last one at or below `rows`
  const Bucket* before_below = nullptr;
  double least = 0;  // of all smaller steps: noise shall not make more rows look cheaper
  for (const Bucket& bucket : buckets_) {
    if (bucket.count == 0) continue;
    if (bucket.rows > rows) {
      if (below == nullptr) return bucket.seconds * (1 + rows / bucket.rows) / 2;
      const double share = (rows - below->rows) / (bucket.rows - below->rows);
      return std::max(least, below->seconds + share * (bucket.seconds - below->seconds));
    }
    before_below = below;
    below = &bucket;
    least = std::max(least, bucket.seconds);
  }
  if (below == nullptr) return 0;
  if (before_below == nullptr) return below->seconds * rows / below->rows;
  const double slope =
      (below->seconds - before_below->seconds) / (below->rows - before_below->rows);
  return std::max(least, below->seconds + slope * (rows - below->rows));
}

void ChainTimes::ObserveStep(uint32_t rows, absl::Span<const StageTiming> timings,
                             absl::Duration round_trip) {
  if (timings.size() != stages_.size()) return;
  absl::Duration inside;
  for (size_t i = 0; i < timings.size(); ++i) {
    const StageTiming& timing = timings[i];
    stages_[i].Observe(rows, absl::Microseconds(timing.compute_micros));
    inside += absl::Microseconds(uint64_t{timing.decode_micros} + timing.queue_micros +
                                 timing.compute_micros + timing.encode_micros);
  }
  links_.Observe(rows, std::max(round_trip - inside, absl::ZeroDuration()));
}

bool ChainTimes::known() const {
  return !stages_.empty() && std::all_of(stages_.begin(), stages_.end(),
                                         [](const RowTimes& stage) { return stage.known(); });
}

double ChainTimes::Interval(uint32_t rows, uint32_t head_rows) const {
  // The links' delays overlap with each other; their bandwidth shows in what rows add.
  const double hops = static_cast<double>(stages_.size() + 1);
  double slowest =
      std::max(HeadSeconds(head_rows), (links_.Seconds(rows) - links_.Seconds(1)) / hops);
  for (const RowTimes& stage : stages_) slowest = std::max(slowest, stage.Seconds(rows));
  return slowest;
}

double ChainTimes::Pass(uint32_t rows, uint32_t head_rows) const {
  double sum = links_.Seconds(rows) + HeadSeconds(head_rows);
  for (const RowTimes& stage : stages_) sum += stage.Seconds(rows);
  return sum;
}

}  // namespace efedllm
