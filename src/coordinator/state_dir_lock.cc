#include "coordinator/state_dir_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status_macros.h"

namespace efedllm {

absl::StatusOr<StateDirLock> StateDirLock::Take(const std::string& dir) {
  RETURN_IF_ERROR(MakeDirectories(dir, 0700));
  const std::string path = dir + "/lock";
  StateDirLock lock;
  lock.fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock.fd_ < 0) return ErrnoStatus(errno, "open", path);
  if (flock(lock.fd_, LOCK_EX | LOCK_NB) == 0) {
    RemoveUnfinishedFiles(dir);
    return lock;
  }
  if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock", path);
  return absl::FailedPreconditionError(absl::StrCat("another coordinator runs with the state dir ",
                                                    dir, "; give this one its own --state-dir"));
}

StateDirLock::~StateDirLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace efedllm
