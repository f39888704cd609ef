#include "faultsim/memory_disk.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace efedllm::faultsim {
namespace {

constexpr int kSector = 512;
constexpr char kVfsName[] = "efedllm-faultsim";

MemoryDisk* mounted = nullptr;    // the disk of the world that runs
sqlite3_vfs* real_vfs = nullptr;  // for all other files
sqlite3_vfs simulated_vfs;

struct OpenFile {
  sqlite3_file base;  // first: SQLite knows no more of it
  MemoryDisk* disk;
  MemoryDisk::File* file;
};

OpenFile& Cast(sqlite3_file* file) { return *reinterpret_cast<OpenFile*>(file); }

int Result(DiskFault fault, int error) {
  if (fault == DiskFault::kFull) return SQLITE_FULL;
  return fault == DiskFault::kError ? error : SQLITE_OK;
}

int Close(sqlite3_file*) { return SQLITE_OK; }

int Read(sqlite3_file* base, void* to, int bytes, sqlite3_int64 offset) {
  const std::string& content = Cast(base).file->content;
  const auto begin = std::min(content.size(), static_cast<size_t>(offset));
  const size_t there = std::min(content.size() - begin, static_cast<size_t>(bytes));
  std::memcpy(to, content.data() + begin, there);
  if (there == static_cast<size_t>(bytes)) return SQLITE_OK;
  std::memset(static_cast<char*>(to) + there, 0, static_cast<size_t>(bytes) - there);
  return SQLITE_IOERR_SHORT_READ;
}

void Put(std::string& content, uint64_t offset, const char* data, size_t bytes) {
  if (content.size() < offset + bytes) content.resize(offset + bytes);
  std::memcpy(content.data() + offset, data, bytes);
}

int Write(sqlite3_file* base, const void* from, int bytes, sqlite3_int64 offset) {
  OpenFile& open = Cast(base);
  const int result = Result(open.disk->OnOp(DiskOp::kWrite), SQLITE_IOERR_WRITE);
  if (result != SQLITE_OK || open.disk->frozen()) return result;
  const auto* data = static_cast<const char*>(from);
  Put(open.file->content, static_cast<uint64_t>(offset), data, static_cast<size_t>(bytes));
  open.file->unsynced.push_back(
      {static_cast<uint64_t>(offset), std::string(data, static_cast<size_t>(bytes))});
  return SQLITE_OK;
}

int Truncate(sqlite3_file* base, sqlite3_int64 size) {
  OpenFile& open = Cast(base);
  if (open.disk->frozen()) return SQLITE_OK;
  open.file->content.resize(static_cast<size_t>(size));
  return SQLITE_OK;
}

int Sync(sqlite3_file* base, int) {
  OpenFile& open = Cast(base);
  const DiskFault fault = open.disk->OnOp(DiskOp::kSync);
  const int result = Result(fault, SQLITE_IOERR_FSYNC);
  if (result != SQLITE_OK || open.disk->frozen() || fault == DiskFault::kLostSync) return result;
  open.file->durable = open.file->content;
  open.file->unsynced.clear();
  return SQLITE_OK;
}

int FileSize(sqlite3_file* base, sqlite3_int64* size) {
  *size = static_cast<sqlite3_int64>(Cast(base).file->content.size());
  return SQLITE_OK;
}

int Lock(sqlite3_file*, int) { return SQLITE_OK; }
int CheckReservedLock(sqlite3_file*, int* locked) {
  *locked = 0;
  return SQLITE_OK;
}
int FileControl(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int SectorSize(sqlite3_file*) { return kSector; }
int DeviceCharacteristics(sqlite3_file*) { return 0; }

int ShmMap(sqlite3_file* base, int region, int bytes, int extend, void volatile** memory) {
  auto& regions = Cast(base).file->shared_memory;
  while (extend != 0 && regions.size() <= static_cast<size_t>(region)) {
    regions.push_back(std::make_unique<char[]>(static_cast<size_t>(bytes)));
  }
  *memory = static_cast<size_t>(region) < regions.size() ? regions[region].get() : nullptr;
  return SQLITE_OK;
}
int ShmLock(sqlite3_file*, int, int, int) { return SQLITE_OK; }
void ShmBarrier(sqlite3_file*) {}
int ShmUnmap(sqlite3_file* base, int remove) {
  if (remove != 0) Cast(base).file->shared_memory.clear();
  return SQLITE_OK;
}

const sqlite3_io_methods kMethods = {2,
                                     Close,
                                     Read,
                                     Write,
                                     Truncate,
                                     Sync,
                                     FileSize,
                                     Lock,
                                     Lock,
                                     CheckReservedLock,
                                     FileControl,
                                     SectorSize,
                                     DeviceCharacteristics,
                                     ShmMap,
                                     ShmLock,
                                     ShmBarrier,
                                     ShmUnmap,
                                     nullptr,
                                     nullptr};

bool IsOurs(const char* path) {
  return mounted != nullptr && path != nullptr &&
         std::strncmp(path, mounted->folder().c_str(), mounted->folder().size()) == 0;
}

int OpenPath(sqlite3_vfs*, const char* path, sqlite3_file* base, int flags, int* out_flags) {
  if (!IsOurs(path)) return real_vfs->xOpen(real_vfs, path, base, flags, out_flags);
  OpenFile& open = Cast(base);
  open.disk = mounted;
  open.file = &mounted->Open(path);
  open.base.pMethods = &kMethods;
  if (out_flags != nullptr) *out_flags = flags;
  return SQLITE_OK;
}

int DeletePath(sqlite3_vfs*, const char* path, int sync_dir) {
  if (!IsOurs(path)) return real_vfs->xDelete(real_vfs, path, sync_dir);
  mounted->Delete(path);
  return SQLITE_OK;
}

int AccessPath(sqlite3_vfs*, const char* path, int flags, int* result) {
  if (!IsOurs(path)) return real_vfs->xAccess(real_vfs, path, flags, result);
  *result = mounted->Exists(path) ? 1 : 0;
  return SQLITE_OK;
}

int FullPathname(sqlite3_vfs*, const char* path, int size, char* out) {
  if (!IsOurs(path)) return real_vfs->xFullPathname(real_vfs, path, size, out);
  return sqlite3_snprintf(size, out, "%s", path) == nullptr ? SQLITE_CANTOPEN : SQLITE_OK;
}

// Once a process. All else is as of the real one.
void RegisterVfs() {
  if (real_vfs != nullptr) return;
  real_vfs = sqlite3_vfs_find(nullptr);
  CHECK(real_vfs != nullptr);
  simulated_vfs = *real_vfs;
  simulated_vfs.zName = kVfsName;
  simulated_vfs.pNext = nullptr;
  simulated_vfs.szOsFile = std::max<int>(real_vfs->szOsFile, sizeof(OpenFile));
  simulated_vfs.xOpen = OpenPath;
  simulated_vfs.xDelete = DeletePath;
  simulated_vfs.xAccess = AccessPath;
  simulated_vfs.xFullPathname = FullPathname;
  CHECK(sqlite3_vfs_register(&simulated_vfs, /*makeDflt=*/1) == SQLITE_OK);
}

}  // namespace

MemoryDisk::MemoryDisk(std::string folder) : folder_(std::move(folder)) {
  RegisterVfs();
  mounted = this;
}

MemoryDisk::~MemoryDisk() {
  if (mounted == this) mounted = nullptr;
}

void MemoryDisk::CopyFilesFrom(const MemoryDisk& other) {
  files_.clear();
  for (const auto& [path, file] : other.files_) {
    files_[path].content = file.content;
    files_[path].durable = file.content;
  }
}

void MemoryDisk::Recover(Random& random) {
  for (auto& [path, file] : files_) {
    std::string content = std::move(file.durable);
    for (size_t i = 0; i < file.unsynced.size(); ++i) {
      const File::Write& write = file.unsynced[i];
      const uint64_t sectors = (write.data.size() + kSector - 1) / kSector;
      uint64_t bytes = write.data.size();
      if (random.Below(2) == 0) {
        bytes = std::min<uint64_t>(bytes, random.Below(sectors + 1) * kSector);
      }
      if (bytes > 0) Put(content, write.offset, write.data.data(), bytes);
    }
    file.content = content;
    file.durable = std::move(content);
    file.unsynced.clear();
    file.shared_memory.clear();
  }
  frozen_ = false;
}

void MemoryDisk::Delete(const std::string& path) {
  if (!frozen_) files_.erase(path);
}

DiskFault MemoryDisk::OnOp(DiskOp op) {
  if (frozen_ || !on_op_) return DiskFault::kNone;
  const DiskFault fault = on_op_(op);
  if (fault == DiskFault::kCrash) Freeze();
  return fault;
}

}  // namespace efedllm::faultsim
