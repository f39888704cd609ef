#include "net/http_threads.h"

#include <spdlog/spdlog.h>

#include <system_error>

namespace efedllm {

bool& ConnectionThreads::refusing() {
  thread_local bool value = false;
  return value;
}

void ConnectionThreads::enqueue(std::function<void()> task) {
  JoinFinished();
  if (Start(task)) return;
  refusing() = true;
  task();
  refusing() = false;
}

bool ConnectionThreads::Start(const std::function<void()>& task) {
  absl::MutexLock lock(&mu_);
  if (running_.size() >= max_) return false;
  const auto place = running_.emplace(running_.end());
  try {
    *place = std::thread([this, place, task] { Run(place, task); });
    return true;
  } catch (const std::system_error& error) {
    spdlog::error("http: no thread for a connection: {}", error.what());
    running_.erase(place);
    return false;
  }
}

void ConnectionThreads::shutdown() {
  {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(this, &ConnectionThreads::NoneRunning));
  }
  JoinFinished();
}

void ConnectionThreads::Run(Threads::iterator place, const std::function<void()>& task) {
  task();
  absl::MutexLock lock(&mu_);
  finished_.splice(finished_.end(), running_, place);
}

void ConnectionThreads::JoinFinished() {
  Threads finished;
  {
    absl::MutexLock lock(&mu_);
    finished.swap(finished_);
  }
  for (std::thread& thread : finished) thread.join();
}

}  // namespace efedllm
