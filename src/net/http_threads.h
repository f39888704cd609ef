// The threads of the HTTP server's connections.
#ifndef EFEDLLM_NET_HTTP_THREADS_H_
#define EFEDLLM_NET_HTTP_THREADS_H_

#include <httplib.h>

#include <functional>
#include <list>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace efedllm {

// A thread per open connection; none waits idle. For this folder.
class ConnectionThreads final : public httplib::TaskQueue {
 public:
  explicit ConnectionThreads(size_t max) : max_(max) {}

  // Beyond the maximum, and where the system has no thread left, the caller runs the task, which
  // sees by refusing() that it must not serve.
  void enqueue(std::function<void()> task) override ABSL_LOCKS_EXCLUDED(mu_);
  // Waits for all.
  void shutdown() override ABSL_LOCKS_EXCLUDED(mu_);

  // Whether this thread runs a task that there is no thread for.
  static bool& refusing();

 private:
  using Threads = std::list<std::thread>;

  void Run(Threads::iterator place, const std::function<void()>& task) ABSL_LOCKS_EXCLUDED(mu_);
  void JoinFinished() ABSL_LOCKS_EXCLUDED(mu_);
  bool Start(const std::function<void()>& task) ABSL_LOCKS_EXCLUDED(mu_);
  bool NoneRunning() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return running_.empty(); }

  const size_t max_;
  absl::Mutex mu_;
  Threads running_ ABSL_GUARDED_BY(mu_);
  Threads finished_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_NET_HTTP_THREADS_H_
