#include "store/sealed_pages.h"

#include <sqlite3.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace efedllm {
namespace {

constexpr char kName[] = "efedllm-sealed";
constexpr size_t kContentBytes = kSealedPageBytes - kSealBytes;
constexpr uint8_t kSealMark = 0xe5;  // a seal's first byte: none is near to zeros
constexpr uint64_t kLockPage = 0x40000000 / kSealedPageBytes + 1;  // SQLite leaves it alone
constexpr size_t kReservedBytesAt = 20;                            // in the file's header
constexpr size_t kPageCountAt = 28;

using Seal = std::array<uint8_t, kSealBytes>;

// page: its content; number: from 1, so that pages can't change places.
Seal SealOf(const uint8_t* page, uint64_t number) {
  XXH128_canonical_t hash;
  XXH128_canonicalFromHash(&hash, XXH3_128bits_withSeed(page, kContentBytes, number));
  Seal seal;
  std::copy_n(hash.digest, kSealBytes, seal.begin());
  seal[0] = kSealMark;
  return seal;
}

bool IsZeros(const uint8_t* bytes, size_t size) {
  return std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0; });
}

enum class PageState { kSealed, kUnsealed, kBad };

PageState StateOf(const uint8_t* page, uint64_t number) {
  const uint8_t* seal = page + kContentBytes;
  if (IsZeros(seal, kSealBytes)) {
    // The page in which SQLite has its locks is never written: a hole.
    if (number != kLockPage) return PageState::kUnsealed;
    return IsZeros(page, kContentBytes) ? PageState::kSealed : PageState::kBad;
  }
  const Seal expected = SealOf(page, number);
  return std::equal(expected.begin(), expected.end(), seal) ? PageState::kSealed : PageState::kBad;
}

// Goes through a file's pages in order.
class SealScan {
 public:
  // pages: whole ones, behind those that were added.
  void Add(absl::Span<const uint8_t> pages) {
    if (report_.pages == 0 && !pages.empty()) {
      for (size_t i = 0; i < 4; ++i)
        expected_pages_ = expected_pages_ << 8 | pages[kPageCountAt + i];
    }
    for (; !pages.empty(); pages.remove_prefix(kSealedPageBytes)) {
      const PageState state = StateOf(pages.data(), ++report_.pages);
      if (state == PageState::kUnsealed) ++report_.unsealed;
      if (state == PageState::kBad) MarkBad(report_.pages);
    }
  }

  // rest: the bytes behind the last whole page.
  SealReport Finish(size_t rest) {
    if (rest > 0) MarkBad(report_.pages + 1);
    if (report_.pages != expected_pages_) MarkBad(std::min(report_.pages, expected_pages_) + 1);
    return report_;
  }

 private:
  void MarkBad(uint64_t page) {
    if (!report_.bad_page.has_value() || *report_.bad_page > page) report_.bad_page = page;
  }

  SealReport report_;
  uint64_t expected_pages_ = 0;
};

// A database file; `real`, the system's, lies right behind it in memory that SQLite gave us.
struct SealedFile {
  sqlite3_file base;
  sqlite3_file* real;
};

sqlite3_file* Real(sqlite3_file* file) { return reinterpret_cast<SealedFile*>(file)->real; }

sqlite3_vfs* System() { return sqlite3_vfs_find("unix"); }

bool IsPage(int size, sqlite3_int64 offset) {
  return size == static_cast<int>(kSealedPageBytes) && offset % kSealedPageBytes == 0;
}

int Close(sqlite3_file* file) { return Real(file)->pMethods->xClose(Real(file)); }

int Read(sqlite3_file* file, void* buffer, int size, sqlite3_int64 offset) {
  const int result = Real(file)->pMethods->xRead(Real(file), buffer, size, offset);
  if (result != SQLITE_OK || !IsPage(size, offset)) return result;
  auto* page = static_cast<uint8_t*>(buffer);
  if (StateOf(page, offset / kSealedPageBytes + 1) == PageState::kBad) return SQLITE_IOERR_DATA;
  std::memset(page + kContentBytes, 0, kSealBytes);
  return SQLITE_OK;
}

int Write(sqlite3_file* file, const void* buffer, int size, sqlite3_int64 offset) {
  const auto* content = static_cast<const uint8_t*>(buffer);
  // A file that was not made for seals has its data where they go.
  if (!IsPage(size, offset) || (offset == 0 && content[kReservedBytesAt] != kSealBytes)) {
    return SQLITE_IOERR_WRITE;
  }
  std::array<uint8_t, kSealedPageBytes> page;
  std::copy_n(content, kContentBytes, page.begin());
  const Seal seal = SealOf(page.data(), offset / kSealedPageBytes + 1);
  std::copy(seal.begin(), seal.end(), page.begin() + kContentBytes);
  return Real(file)->pMethods->xWrite(Real(file), page.data(), size, offset);
}

int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  return Real(file)->pMethods->xTruncate(Real(file), size);
}
int Sync(sqlite3_file* file, int flags) { return Real(file)->pMethods->xSync(Real(file), flags); }
int FileSize(sqlite3_file* file, sqlite3_int64* size) {
  return Real(file)->pMethods->xFileSize(Real(file), size);
}
int Lock(sqlite3_file* file, int level) { return Real(file)->pMethods->xLock(Real(file), level); }
int Unlock(sqlite3_file* file, int level) {
  return Real(file)->pMethods->xUnlock(Real(file), level);
}
int CheckReservedLock(sqlite3_file* file, int* held) {
  return Real(file)->pMethods->xCheckReservedLock(Real(file), held);
}
int FileControl(sqlite3_file* file, int op, void* argument) {
  return Real(file)->pMethods->xFileControl(Real(file), op, argument);
}
int SectorSize(sqlite3_file* file) { return Real(file)->pMethods->xSectorSize(Real(file)); }
int DeviceCharacteristics(sqlite3_file* file) {
  return Real(file)->pMethods->xDeviceCharacteristics(Real(file));
}
int ShmMap(sqlite3_file* file, int page, int size, int extend, void volatile** memory) {
  return Real(file)->pMethods->xShmMap(Real(file), page, size, extend, memory);
}
int ShmLock(sqlite3_file* file, int offset, int count, int flags) {
  return Real(file)->pMethods->xShmLock(Real(file), offset, count, flags);
}
void ShmBarrier(sqlite3_file* file) { Real(file)->pMethods->xShmBarrier(Real(file)); }
int ShmUnmap(sqlite3_file* file, int remove) {
  return Real(file)->pMethods->xShmUnmap(Real(file), remove);
}

// Version 2: with shared memory, without mapped pages, which nobody could check.
constexpr sqlite3_io_methods kMethods = {2,
                                         Close,
                                         Read,
                                         Write,
                                         Truncate,
                                         Sync,
                                         FileSize,
                                         Lock,
                                         Unlock,
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

int Open(sqlite3_vfs* /*vfs*/, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  // Logs and temporary files are as ever: only what lasts is sealed.
  if ((flags & SQLITE_OPEN_MAIN_DB) == 0) {
    return System()->xOpen(System(), name, file, flags, out_flags);
  }
  auto* sealed = reinterpret_cast<SealedFile*>(file);
  sealed->base.pMethods = nullptr;
  sealed->real = reinterpret_cast<sqlite3_file*>(sealed + 1);
  const int result = System()->xOpen(System(), name, sealed->real, flags, out_flags);
  if (result == SQLITE_OK) sealed->base.pMethods = &kMethods;
  return result;
}

const char* Register() {
  CHECK(sqlite3_initialize() == SQLITE_OK && System() != nullptr);
  static sqlite3_vfs vfs = *System();  // all but opening is the system's
  vfs.szOsFile += static_cast<int>(sizeof(SealedFile));
  vfs.pNext = nullptr;
  vfs.zName = kName;
  vfs.xOpen = Open;
  CHECK(sqlite3_vfs_register(&vfs, /*makeDflt=*/0) == SQLITE_OK);
  return kName;
}

absl::StatusOr<SealReport> Scan(sqlite3_file& file, const std::string& path) {
  sqlite3_int64 size = 0;
  if (file.pMethods->xFileSize(&file, &size) != SQLITE_OK) {
    return absl::InternalError(absl::StrCat("can't tell the size of ", path));
  }
  std::vector<uint8_t> buffer(64 * kSealedPageBytes);
  SealScan scan;
  const sqlite3_int64 whole = size - size % kSealedPageBytes;
  for (sqlite3_int64 offset = 0; offset < whole;) {
    const auto n =
        std::min<sqlite3_int64>(static_cast<sqlite3_int64>(buffer.size()), whole - offset);
    if (file.pMethods->xRead(&file, buffer.data(), static_cast<int>(n), offset) != SQLITE_OK) {
      return absl::InternalError(absl::StrCat("can't read ", path, " at byte ", offset));
    }
    scan.Add({buffer.data(), static_cast<size_t>(n)});
    offset += n;
  }
  return scan.Finish(size - whole);
}

}  // namespace

const char* SealedFileSystem() {
  static const char* const name = Register();
  return name;
}

// By SQLite's own file: closing a descriptor of ours would drop the locks that a connection of this
// process holds on it (POSIX).
absl::StatusOr<SealReport> CheckSeals(const std::string& path) {
  CHECK(sqlite3_initialize() == SQLITE_OK);
  const char* name = sqlite3_create_filename(path.c_str(), absl::StrCat(path, "-journal").c_str(),
                                             absl::StrCat(path, "-wal").c_str(), 0, nullptr);
  const absl::Cleanup free_name = [name] { sqlite3_free_filename(name); };
  const auto memory = std::make_unique<uint64_t[]>(System()->szOsFile / sizeof(uint64_t) + 1);
  auto* file = reinterpret_cast<sqlite3_file*>(memory.get());
  if (System()->xOpen(System(), name, file, SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB, nullptr) !=
      SQLITE_OK) {
    return absl::NotFoundError(absl::StrCat("can't open ", path));
  }
  const absl::Cleanup close = [file] { file->pMethods->xClose(file); };
  return Scan(*file, path);
}

SealReport CheckSeals(absl::Span<const uint8_t> file) {
  SealScan scan;
  const size_t rest = file.size() % kSealedPageBytes;
  scan.Add(file.subspan(0, file.size() - rest));
  return scan.Finish(rest);
}

}  // namespace efedllm
