// Stages computed again by workers, over the network (worker/stage_verifier.h).
#ifndef EFEDLLM_COORDINATOR_NETWORK_STAGE_REPLAYER_H_
#define EFEDLLM_COORDINATOR_NETWORK_STAGE_REPLAYER_H_

#include <atomic>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/stage_replayer.h"
#include "net/credentials.h"

namespace efedllm {

struct NetworkStageReplayerOptions {
  absl::Duration call = absl::Seconds(10);      // each of a question's calls
  absl::Duration patience = absl::Seconds(20);  // until a node commits itself; audits wait
  absl::Duration transfer = absl::Seconds(30);  // all inputs, and all outputs
};

class NetworkStageReplayer final : public StageReplayer {
 public:
  // transport is borrowed and outlives this.
  explicit NetworkStageReplayer(const Transport& transport,
                                NetworkStageReplayerOptions options = {})
      : transport_(transport), options_(std::move(options)) {}

  absl::StatusOr<StageReplayAnswer> Ask(NodeId node, const std::string& address,
                                        const StageReplayQuestion& question) override;
  // A call under way is waited for.
  void Cancel() override { cancelled_ = true; }

 private:
  const Transport& transport_;
  const NetworkStageReplayerOptions options_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_NETWORK_STAGE_REPLAYER_H_
