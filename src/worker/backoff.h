// How long to wait before the next attempt: doubling, with jitter so that a restarted coordinator
// is not met by all of its workers at once.
#ifndef EFEDLLM_WORKER_BACKOFF_H_
#define EFEDLLM_WORKER_BACKOFF_H_

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "common/random.h"

namespace efedllm {

class Backoff {
 public:
  Backoff(absl::Duration least, absl::Duration most, uint64_t seed)
      : least_(least), most_(most), next_(least), random_(seed) {}

  // Between half and all of: least, twice least ... most.
  absl::Duration Next() {
    const absl::Duration wait = next_ * (0.5 + 0.5 * random_.Uniform());
    next_ = std::min(next_ * 2, most_);
    return wait;
  }
  // After a success.
  void Reset() { next_ = least_; }
  // From now on.
  void SetMost(absl::Duration most) { most_ = most; }

 private:
  const absl::Duration least_;
  absl::Duration most_;
  absl::Duration next_;
  Random random_;
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_BACKOFF_H_
