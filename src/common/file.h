// Files: read-only mappings, bounded reads, and writes that are there in full or not at all.
#ifndef EFEDLLM_COMMON_FILE_H_
#define EFEDLLM_COMMON_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace efedllm {

// A whole file, mapped read-only. Move-only; unmaps when it goes. Reading it while another process
// truncates the file raises SIGBUS, as for every mapping.
class MappedFile {
 public:
  // NotFound, PermissionDenied, InvalidArgument (not a regular file), or Internal; the message
  // names the path.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  // Borrowed; valid as long as this object (moving it keeps the address).
  absl::Span<const uint8_t> bytes() const { return {data_, size_}; }

  // Lets the kernel drop the pages of [offset, offset + length) that are wholly inside; they come
  // back from disk.
  void DropPages(size_t offset, size_t length) const;

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// Whole file. ResourceExhausted: larger than max_bytes.
absl::StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

// Writes path.<random>, fsyncs, renames over path, and fsyncs the folder. mode: as in chmod.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view data, int mode);

// fsyncs the folder that path is in: a file made or renamed there then outlives a power cut.
absl::Status SyncFolderOf(const std::string& path);

// Removes what WriteFileAtomically left in the folder when its process was killed. Nobody else may
// write there meanwhile.
void RemoveUnfinishedFiles(const std::string& folder);

// mkdir -p with this mode for the last folder; fine if it exists.
absl::Status MakeDirectories(const std::string& path, int mode);

// An errno as a Status that names the operation and the path.
absl::Status ErrnoStatus(int error_number, absl::string_view operation, absl::string_view path);

}  // namespace efedllm

#endif  // EFEDLLM_COMMON_FILE_H_
