// One edge between two workers that can't reach each other: frames go on as they came.
#ifndef EFEDLLM_COORDINATOR_HOP_RELAY_H_
#define EFEDLLM_COORDINATOR_HOP_RELAY_H_

#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "common/bounded_queue.h"
#include "net/hop.h"

namespace efedllm {

// Thread-safe. A thread of its own sends, so that a slow link holds up its own edge alone.
class HopRelay {
 public:
  // most_frames: that may wait.
  HopRelay(std::unique_ptr<FrameSender> to, size_t most_frames);
  // Drops what waits.
  ~HopRelay();

  // ResourceExhausted: more frames wait than were ever sent on their way. Never blocks.
  absl::Status Forward(grpc::ByteBuffer frame);
  // OK as long as frames are taken.
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Send(const grpc::ByteBuffer& frame);

  const std::unique_ptr<FrameSender> to_;
  BoundedQueue<grpc::ByteBuffer> waiting_;
  std::atomic<bool> stopping_{false};
  mutable absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_HOP_RELAY_H_
