// How much of the processor audits take while requests are served.
#ifndef EFEDLLM_COORDINATOR_AUDIT_PACE_H_
#define EFEDLLM_COORDINATOR_AUDIT_PACE_H_

#include "absl/time/time.h"

namespace efedllm {

// A share of one core, which is saved up to a burst where it is not used. Not thread-safe.
class AuditPace {
 public:
  AuditPace(double share, absl::Duration burst) : share_(share), burst_(burst), saved_(burst) {}

  // Is there some of the share left? now: by a steady clock. used: processor time of the audits so
  // far. free: nobody needs the processor, and what was used since the last call is not counted;
  // always true then.
  bool MayGoOn(absl::Time now, absl::Duration used, bool free);

 private:
  const double share_;
  const absl::Duration burst_;
  absl::Duration saved_, used_;
  absl::Time at_ = absl::InfinitePast();  // of the last call
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_PACE_H_
