// What steps of so many rows take, learned from those that came back: the measure by which the
// scheduler cuts its micro-batches, deadlines are set, and plans are made anew.
#ifndef EFEDLLM_CLUSTER_STAGE_TIMES_H_
#define EFEDLLM_CLUSTER_STAGE_TIMES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster/stage_timing.h"

namespace efedllm {

// Time as a function of rows. Observations are gathered in buckets, four to an octave, and a
// bucket's mean follows the newer ones; between buckets it is linear. Pure data.
class RowTimes {
 public:
  // kMean follows the mean, for work; kLeast what passes undisturbed, for links: a frame that
  // waits behind others says nothing of the link.
  enum class Keep { kMean, kLeast };
  explicit RowTimes(Keep keep = Keep::kMean) : keep_(keep) {}

  void Observe(uint32_t rows, absl::Duration time);
  bool known() const;
  // Seconds of a step of so many rows; 0 as long as nothing is known. Never falls with rows.
  // Outside of what was seen it goes on in proportion to rows + 10.
  double Seconds(uint32_t rows) const;

  struct Point {
    double rows = 0;
    double seconds = 0;
  };
  // What was seen at least so many times, by ascending rows.
  std::vector<Point> Points(uint32_t least_count) const;

 private:
  static constexpr size_t kBuckets = 48;
  struct Bucket {
    uint32_t count = 0;
    double rows = 0;
    double seconds = 0;
  };
  static size_t BucketOf(uint32_t rows);

  Keep keep_;
  std::array<Bucket, kBuckets> buckets_;
};

// One chain's: its stages, its links together, and the head behind them.
class ChainTimes {
 public:
  explicit ChainTimes(size_t stages = 0) : stages_(stages) {}

  // A step of so many rows came back after round_trip; timings: one per stage, in their order (else
  // it is ignored).
  void ObserveStep(uint32_t rows, absl::Span<const StageTiming> timings, absl::Duration round_trip);
  // The coordinator's work on the rows that came back.
  void ObserveHead(uint32_t rows, absl::Duration time) { head_.Observe(rows, time); }

  bool known() const;
  size_t stages() const { return stages_.size(); }
  const RowTimes& stage(size_t i) const { return stages_[i]; }
  // Seconds between two steps of so many rows, and of so many whose logits are wanted, where
  // nothing waits: what the slowest of the stages, the links and the head takes.
  double Interval(uint32_t rows, uint32_t head_rows) const;
  // Seconds from a step's submission until its logits are known, where nothing else is under way.
  double Pass(uint32_t rows, uint32_t head_rows) const;

 private:
  double HeadSeconds(uint32_t rows) const { return rows == 0 ? 0 : head_.Seconds(rows); }

  std::vector<RowTimes> stages_;
  RowTimes links_{RowTimes::Keep::kLeast};  // all hops together
  RowTimes head_;
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_STAGE_TIMES_H_
