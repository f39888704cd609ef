// A state dir belongs to one coordinator.
#ifndef EFEDLLM_COORDINATOR_STATE_DIR_LOCK_H_
#define EFEDLLM_COORDINATOR_STATE_DIR_LOCK_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace efedllm {

// Held as long as it lives.
class StateDirLock {
 public:
  // Makes the folder where it is missing (0700), and removes what a process before did not finish
  // writing. FailedPrecondition: another coordinator holds it.
  static absl::StatusOr<StateDirLock> Take(const std::string& dir);

  StateDirLock() = default;  // of nothing
  StateDirLock(StateDirLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  StateDirLock& operator=(StateDirLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~StateDirLock();

 private:
  int fd_ = -1;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_STATE_DIR_LOCK_H_
