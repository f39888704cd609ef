#include "cluster/stage_times.h"

#include <algorithm>
#include <cmath>

namespace efedllm {
namespace {

constexpr uint32_t kMemory = 16;  // observations after which the oldest count for little
// Outside of what was seen a step is taken to cost like this many rows more than it has: what it
// takes to read the weights once, on common machines (docs/benchmarks.md, pp16 to pp512).
constexpr double kFreeRows = 10;
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

std::vector<RowTimes::Point> RowTimes::Points(uint32_t least_count) const {
  std::vector<Point> points;
  for (const Bucket& bucket : buckets_) {
    if (bucket.count >= std::max<uint32_t>(least_count, 1)) {
      points.push_back({bucket.rows, bucket.seconds});
    }
  }
  return points;
}

double RowTimes::Seconds(uint32_t rows) const {
  // What disturbs a step only adds to its time: a larger step that took less bounds a smaller one.
  std::array<Bucket, kBuckets> known;
  size_t first = kBuckets;
  for (size_t i = kBuckets; i-- > 0;) {
    if (buckets_[i].count == 0) continue;
    Bucket bucket = buckets_[i];
    if (first < kBuckets) bucket.seconds = std::min(bucket.seconds, known[first].seconds);
    known[--first] = bucket;
  }
  const absl::Span<const Bucket> all = absl::MakeConstSpan(known).subspan(first);
  if (all.empty()) return 0;
  const auto above = std::find_if(all.begin(), all.end(),
                                  [rows](const Bucket& bucket) { return bucket.rows > rows; });
  if (above == all.begin() || above == all.end()) {
    const Bucket& nearest = above == all.begin() ? all.front() : all.back();
    return nearest.seconds * (rows + kFreeRows) / (nearest.rows + kFreeRows);
  }
  const Bucket& below = *(above - 1);
  return below.seconds +
         (above->seconds - below.seconds) * (rows - below.rows) / (above->rows - below.rows);
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
