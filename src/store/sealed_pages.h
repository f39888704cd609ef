// SQLite pages that prove themselves: a virtual file system that keeps the last 16 bytes of every
// page of a database file for a seal (XXH3 of the page's other bytes and its number), writes it
// with each page, and checks it with each read. With it no bit of a file is unaccounted for, not
// even in bytes that SQLite does not use. It finds accidents; who wants to deceive can seal too.
//
// Inside of SQLite, and so in its write-ahead log, the seal is all zeros. A page whose seal is
// zeros in the file was written by another program (the sqlite3 tool finishing the log of a killed
// process): it is not damage, but nothing vouches for its unused bytes.
#ifndef EFEDLLM_STORE_SEALED_PAGES_H_
#define EFEDLLM_STORE_SEALED_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace efedllm {

inline constexpr size_t kSealedPageBytes = 4096;
inline constexpr size_t kSealBytes = 16;

// The name under which SQLite knows the file system. Registers it at the first call.
const char* SealedFileSystem();

struct SealReport {
  uint64_t pages = 0;
  uint64_t unsealed = 0;  // without a seal: see above
  // The first page (from 1) that is not what was sealed, or where the file is cut off or goes on
  // although it should not.
  std::optional<uint64_t> bad_page;
};

// The file's bytes as they are on disk, without what a write-ahead log may still hold. NotFound:
// there is no such file, or it may not be read; Internal: reading failed.
absl::StatusOr<SealReport> CheckSeals(const std::string& path);

// The same of a file in memory.
SealReport CheckSeals(absl::Span<const uint8_t> file);

}  // namespace efedllm

#endif  // EFEDLLM_STORE_SEALED_PAGES_H_
