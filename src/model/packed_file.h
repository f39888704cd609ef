// The file format of a packed tensor: 64 bytes of header, then the data as the kernels read it.
//
//   0   char[8]  "eFedLLMw"
//   8   u32      kPackedLayoutVersion
//   12  u32      dtype
//   16  u64      rows
//   24  u64      cols
//   32  u64      bytes of the data
//   40  u64      XXH3-64 of the data
//   48  u64[2]   0
//
// Little-endian. A file of another layout version is not read but made anew.
#ifndef EFEDLLM_MODEL_PACKED_FILE_H_
#define EFEDLLM_MODEL_PACKED_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster/tensor_spec.h"
#include "common/file.h"

namespace efedllm {

inline constexpr size_t kPackedFileHeaderBytes = 64;

// Packs gguf (spec.bytes() of them) piece by piece into a new file beside path, syncs it, and
// renames it to path. ResourceExhausted: the disk is full; nothing is left behind then.
absl::Status WritePackedFile(const std::string& path, const TensorSpec& spec,
                             absl::Span<const uint8_t> gguf);

// The same for a tensor that is packed already: PackedBytes(spec) of them.
absl::Status WritePackedBytes(const std::string& path, const TensorSpec& spec,
                              absl::Span<const uint8_t> packed);

// Maps a file and verifies all of it; the data begins at kPackedFileHeaderBytes. NotFound: no such
// file; DataLoss: damaged, or not this tensor in this layout.
absl::StatusOr<MappedFile> MapPackedFile(const std::string& path, const TensorSpec& spec);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_PACKED_FILE_H_
