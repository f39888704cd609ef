// Measures links one after the other, in the background.
#ifndef EFEDLLM_NET_LINK_PROBER_H_
#define EFEDLLM_NET_LINK_PROBER_H_

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "net/credentials.h"
#include "net/link_probe.h"

namespace efedllm {

struct LinkProberOptions {
  // True while a measurement would disturb; a target waits for a pause, but not longer than
  // patience.
  std::function<bool()> busy;
  absl::Duration patience = absl::Seconds(10);
};

class LinkProber {
 public:
  struct Target {
    NodeId node;
    std::string address;  // HOST:PORT
  };
  // On the prober's thread.
  using Done = std::function<void(NodeId node, const absl::StatusOr<LinkMeasurement>&)>;

  // transport is borrowed and outlives this.
  LinkProber(const Transport& transport, LinkProberOptions options, Done done);
  ~LinkProber();  // cancels what is under way; what waits is never measured

  // Behind those that wait; a node that waits already has its new address. Beyond some hundreds
  // they are dropped. Thread-safe, never blocks.
  void Measure(const std::vector<Target>& targets) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits for it. nullopt: stopping.
  std::optional<Target> Next() ABSL_LOCKS_EXCLUDED(mu_);
  // False: stopping.
  bool AwaitPause() ABSL_LOCKS_EXCLUDED(mu_);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return stopping_ || !waiting_.empty(); }

  const Transport& transport_;
  const LinkProberOptions options_;
  const Done done_;

  absl::Mutex mu_;
  std::deque<Target> waiting_ ABSL_GUARDED_BY(mu_);
  LinkProbe* probe_ ABSL_GUARDED_BY(mu_) = nullptr;  // under way
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_NET_LINK_PROBER_H_
