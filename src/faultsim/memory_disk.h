// The coordinator's disk: files in memory beneath the real SQLite. What was not synced when the
// process dies may be there, or not, or in part.
#ifndef EFEDLLM_FAULTSIM_MEMORY_DISK_H_
#define EFEDLLM_FAULTSIM_MEMORY_DISK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/random.h"

namespace efedllm::faultsim {

enum class DiskOp { kWrite, kSync };
enum class DiskFault {
  kNone,
  kFull,     // SQLITE_FULL
  kError,    // SQLITE_IOERR
  kCrash,    // the machine stops here: nothing reaches the disk any more
  kLostSync  // says that it synced, and did not
};

// Holds the files below one folder. SQLite sees the disk that was mounted last; files elsewhere are
// the real ones. One thread.
class MemoryDisk {
 public:
  // folder: absolute, without a '/' at its end; it exists really too, but stays empty.
  explicit MemoryDisk(std::string folder);
  ~MemoryDisk();
  MemoryDisk(const MemoryDisk&) = delete;
  MemoryDisk& operator=(const MemoryDisk&) = delete;

  // The same files, all synced.
  void CopyFilesFrom(const MemoryDisk& other);
  // Asked before every write and sync.
  void set_on_op(std::function<DiskFault(DiskOp)> on_op) { on_op_ = std::move(on_op); }

  // From here on nothing that is written gets to the files, and nobody is told.
  void Freeze() { frozen_ = true; }
  // After the process that used it is gone: of each write that was not synced, in any order, all, a
  // part in whole sectors, or nothing is there. The disk works again.
  void Recover(Random& random);

  struct File {
    struct Write {
      uint64_t offset = 0;
      std::string data;
    };
    std::string content;                                 // as the process sees it
    std::string durable;                                 // at the last sync
    std::vector<Write> unsynced;                         // since then
    std::vector<std::unique_ptr<char[]>> shared_memory;  // of the write-ahead log's index
  };

  // For the glue to SQLite.
  const std::string& folder() const { return folder_; }
  bool frozen() const { return frozen_; }
  File& Open(const std::string& path) { return files_[path]; }
  bool Exists(const std::string& path) const { return files_.count(path) > 0; }
  void Delete(const std::string& path);
  DiskFault OnOp(DiskOp op);

 private:
  const std::string folder_;
  std::map<std::string, File> files_;
  std::function<DiskFault(DiskOp)> on_op_;
  bool frozen_ = false;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_MEMORY_DISK_H_
