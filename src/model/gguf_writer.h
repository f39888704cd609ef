// Writes GGUF files (version 3): header first, then the tensors' data as it comes, so that a model
// larger than RAM can be written. See model/gguf.h for the reader.
#ifndef EFEDLLM_MODEL_GGUF_WRITER_H_
#define EFEDLLM_MODEL_GGUF_WRITER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/model_file.h"

namespace efedllm {

// In the order in which they will stand in the file. Views are borrowed. Numbers are written in 32
// bits where they fit without loss, as nearly all keys have them.
using GgufMetadata = std::vector<std::pair<absl::string_view, MetadataValue>>;

// A model's metadata, "general." first, then by name; without what belongs to the file and not to
// the model (alignment, splits).
GgufMetadata MetadataOf(const ModelFile& file);

struct GgufTensor {
  std::string name;
  uint32_t gguf_type = 0;
  std::vector<uint64_t> shape;  // innermost first
  uint64_t bytes = 0;           // of the data
};

// The bytes in front of the data, padded to its alignment. Tensors' data follows in their order,
// each padded to a multiple of kGgufAlignment.
inline constexpr uint64_t kGgufAlignment = 32;
std::string GgufHeader(const GgufMetadata& metadata, absl::Span<const GgufTensor> tensors);

// What a file with these takes.
uint64_t GgufFileBytes(const GgufMetadata& metadata, absl::Span<const GgufTensor> tensors);

// A file that is there in full or not at all: it grows beside its place and is renamed at last.
// Not thread-safe.
class GgufWriter {
 public:
  // Errors of the file system, by the path.
  static absl::StatusOr<std::unique_ptr<GgufWriter>> Create(const std::string& path,
                                                            const GgufMetadata& metadata,
                                                            std::vector<GgufTensor> tensors);
  // Removes what isn't finished.
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // The next bytes of the data: of each tensor in order, in pieces of any size, none of which has
  // bytes of two tensors. CHECK: no more than the tensor has.
  absl::Status Append(absl::Span<const uint8_t> bytes);

  // After all data; syncs the file and puts it in its place, over one that is there. CHECK: all of
  // it has been appended.
  absl::Status Finish();

 private:
  GgufWriter(std::string path, std::string temporary, int fd, std::vector<GgufTensor> tensors);
  absl::Status Write(absl::Span<const uint8_t> bytes);

  const std::string path_, temporary_;
  int fd_;  // -1: finished
  const std::vector<GgufTensor> tensors_;
  size_t tensor_ = 0;     // that is being appended
  uint64_t written_ = 0;  // bytes of it
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GGUF_WRITER_H_
