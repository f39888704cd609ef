// A real coordinator and real workers in one process: TLS over loopback, real weights.
#ifndef EFEDLLM_TESTS_INTEGRATION_CLUSTER_WORLD_H_
#define EFEDLLM_TESTS_INTEGRATION_CLUSTER_WORLD_H_

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/coordinator.h"
#include "worker/worker.h"

namespace efedllm {

inline const std::string kSeedlingPath = EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf";
inline const std::string kStoriesPath =
    EFEDLLM_SOURCE_DIR "/../shared/parity/stories260K/stories260K.gguf";

struct Generated {
  std::vector<int32_t> tokens;
  std::string text;
  absl::Status status;
};

class ClusterWorld {
 public:
  using CoordinatorTweak = std::function<void(CoordinatorOptions&)>;
  using WorkerTweak = std::function<void(WorkerOptions&)>;

  // EXPECTs that the coordinator starts.
  explicit ClusterWorld(const std::string& model, size_t min_workers = 0,
                        const CoordinatorTweak& tweak = nullptr);
  ~ClusterWorld();

  Coordinator& coordinator() { return *coordinator_; }
  const std::string& dir() const { return dir_; }
  std::string join_address() const;

  // A worker of its own state folder, started. All workers measure the same.
  Worker& Join(const WorkerTweak& tweak = nullptr);
  // The same as a process of its own, which can be killed; its pid.
  pid_t Spawn();
  void Kill(pid_t worker, int signal);
  // The i-th worker leaves in good order.
  void Leave(size_t i);
  void StopCoordinator() { coordinator_.reset(); }
  // On the same ports, with the same state. between: while it is down; may be null.
  void RestartCoordinator(const std::function<void()>& between = nullptr);

  // Waits until an epoch serves over exactly so many stages; 0: the coordinator alone. False: it
  // did not in time.
  bool AwaitServing(size_t stages, absl::Duration timeout = absl::Seconds(30));
  // Waits until the cluster's status is so.
  bool AwaitStatus(const std::function<bool(const ClusterStatus&)>& matches,
                   absl::Duration timeout = absl::Seconds(30));
  // Waits until the reason why nothing serves contains the text.
  bool AwaitReason(const std::string& text, absl::Duration timeout = absl::Seconds(30));

  // Greedy.
  std::shared_ptr<Generation> Submit(const std::vector<int32_t>& prompt, uint32_t max_tokens);
  Generated Collect(Generation& generation);
  Generated Generate(const std::vector<int32_t>& prompt, uint32_t max_tokens);

 private:
  bool Await(const std::function<bool()>& condition, absl::Duration timeout);

  const SystemClock clock_;
  std::string dir_;
  CoordinatorOptions options_;
  std::unique_ptr<Coordinator> coordinator_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<pid_t> processes_;
  int next_worker_ = 0;
};

// The tokens of a text, for Seedling.
std::vector<int32_t> SeedlingTokens(const std::string& text);

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_INTEGRATION_CLUSTER_WORLD_H_
