#include "coordinator/audit_pace.h"

#include <algorithm>

namespace efedllm {

bool AuditPace::MayBegin(absl::Time now, absl::Duration used, bool free) {
  Count(now, used, free);
  return free || saved_ > absl::ZeroDuration();
}

bool AuditPace::MayGoOn(absl::Time now, absl::Duration used, bool free) {
  Count(now, used, free);
  return free || saved_ > -burst_;
}

void AuditPace::Count(absl::Time now, absl::Duration used, bool free) {
  if (at_ != absl::InfinitePast()) {
    if (!free) saved_ -= used - used_;
    saved_ = std::min(burst_, saved_ + share_ * (now - at_));
  }
  at_ = now;
  used_ = used;
}

}  // namespace efedllm
