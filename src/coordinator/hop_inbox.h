// Where frames for the coordinator arrive, whatever the epoch.
#ifndef EFEDLLM_COORDINATOR_HOP_INBOX_H_
#define EFEDLLM_COORDINATOR_HOP_INBOX_H_

#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "net/hop.h"

namespace efedllm {

// Takes what arrives. Called from the inbox's thread alone.
class HopSink {
 public:
  virtual ~HopSink() = default;
  virtual void OnFrame(const HopFrame& frame) = 0;
  // Some times a second, also while frames come.
  virtual void OnTick() = 0;
};

// One for the process; epochs take turns. Its thread reads the receiver, so that results are
// decoded while the scheduler's thread computes.
class HopInbox {
 public:
  // Borrowed, outlives this.
  explicit HopInbox(HopReceiver& receiver);
  ~HopInbox();  // Stop()

  HopReceiver& receiver() { return receiver_; }

  // From now on frames are this one's, as long as it lives. Thread-safe.
  void Serve(std::weak_ptr<HopSink> sink) ABSL_LOCKS_EXCLUDED(mu_);
  // Before the receiver shuts down. No effect the second time.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);

  HopReceiver& receiver_;
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::weak_ptr<HopSink> sink_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_HOP_INBOX_H_
