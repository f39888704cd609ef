// How much of the processor audits take while requests are served.
#ifndef EFEDLLM_COORDINATOR_AUDIT_PACE_H_
#define EFEDLLM_COORDINATOR_AUDIT_PACE_H_

#include "absl/time/time.h"

namespace efedllm {

// A share of a core, which is saved up to a burst where it is not used; as much may be owed. Not
// thread-safe.
//
// For all: now: by a steady clock. used: processor time of the audits so far. free: nobody needs
// the processor, and what was used since the last call is not counted; always true then.
class AuditPace {
 public:
  AuditPace(double share, absl::Duration burst) : share_(share), burst_(burst), saved_(burst) {}

  // May an audit begin: is there some of the share left?
  bool MayBegin(absl::Time now, absl::Duration used, bool free);
  // May one that began go on: is less than a burst owed? (A verdict is worth most when it is fresh:
  // a short audit is paid for afterwards.)
  bool MayGoOn(absl::Time now, absl::Duration used, bool free);

 private:
  void Count(absl::Time now, absl::Duration used, bool free);

  const double share_;
  const absl::Duration burst_;
  absl::Duration saved_, used_;
  absl::Time at_ = absl::InfinitePast();  // of the last call
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_PACE_H_
