// How busy the stages are and how long the hops between them take, from the timings that come back
// with every step.
#ifndef EFEDLLM_COORDINATOR_STAGE_METERS_H_
#define EFEDLLM_COORDINATOR_STAGE_METERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster/stage_timing.h"
#include "common/ids.h"
#include "coordinator/pipeline.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "svd/codec.h"

namespace efedllm {

// The share of the last ten seconds in which something ran, one thing at a time. The window ends a
// second before now: what ran since is not all known yet. Not thread-safe.
class BusyMeter {
 public:
  void Add(absl::Time begin, absl::Time end);
  double Share(absl::Time now) const;  // from 0 to 1

 private:
  static constexpr int64_t kSeconds = 10;
  struct Bucket {
    int64_t second = -1;
    absl::Duration busy;
  };
  std::array<Bucket, kSeconds + 2> buckets_;  // the last two are still filling
};

struct StageBusy {
  NodeId node;  // 0: the coordinator itself
  size_t chain = 0;
  size_t stage = 0;  // of the chain
  double share = 0;  // see BusyMeter; of its compute, without decoding, waiting and sending
};

// What crossed a hop, without frames' headers.
struct HopTraffic {
  NodeId from, to;     // 0: the coordinator
  CodecSetting codec;  // of the last step
  uint64_t bytes = 0;
  uint64_t rows = 0;
};

// Thread-safe.
class StageMeters {
 public:
  // clock_offsets: each node's clock minus the coordinator's, where it is known; called about once
  // a second.
  using ClockOffsets = std::function<std::map<NodeId, absl::Duration>()>;
  StageMeters(prometheus::Registry& registry, ClockOffsets clock_offsets);

  // A step of so many rows that came back. From one thread at a time.
  void Observe(const StepResult& result, absl::Time submitted, uint32_t rows)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Hops of the epoch that was observed last.
  std::vector<HopTraffic> Traffic() const ABSL_LOCKS_EXCLUDED(mu_);
  // The stages of the epoch that was observed last, chain by chain.
  std::vector<StageBusy> Busy(absl::Time now) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  prometheus::Histogram& Hop(NodeId from, NodeId to);
  void Count(NodeId from, NodeId to, uint32_t codec, uint32_t bytes, uint32_t rows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // The observing thread's own.
  const ClockOffsets clock_offsets_;
  prometheus::Family<prometheus::Histogram>& hops_;
  std::map<std::pair<NodeId, NodeId>, prometheus::Histogram*> hop_;
  prometheus::Family<prometheus::Counter>& bytes_;
  prometheus::Family<prometheus::Counter>& rows_;
  std::map<NodeId, absl::Duration> offsets_;
  absl::Time offsets_due_ = absl::InfinitePast();

  mutable absl::Mutex mu_;
  Epoch epoch_ ABSL_GUARDED_BY(mu_);
  struct Meter {
    NodeId node;
    BusyMeter busy;
  };
  std::map<std::pair<NodeId, NodeId>, HopTraffic> traffic_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<size_t, size_t>, Meter> meters_ ABSL_GUARDED_BY(mu_);  // by chain and stage
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_STAGE_METERS_H_
