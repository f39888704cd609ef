// What each client's requests cost the cluster, for chargeback: counted as steps come back, each
// position and token once, however often a failover computes it again.
#ifndef EFEDLLM_COORDINATOR_USAGE_METER_H_
#define EFEDLLM_COORDINATOR_USAGE_METER_H_

#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cluster/model_config.h"
#include "coordinator/batcher.h"
#include "incentive/rewards.h"

namespace efedllm {

// Thread-safe.
class UsageMeter {
 public:
  // config: borrowed.
  explicit UsageMeter(const ModelConfig& config) : config_(config) {}

  // A step whose results its sequences have taken. Those without an owner (no API key) count as "".
  void Observe(const Batcher::StepInFlight& step) ABSL_LOCKS_EXCLUDED(mu_);
  // By owner (GenerationInput::owner), since the last call.
  std::map<std::string, KeyUsage> Take() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const ModelConfig& config_;
  absl::Mutex mu_;
  std::map<std::string, KeyUsage> usage_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_USAGE_METER_H_
