// GGUF v2 and v3 by mmap (https://github.com/ggerganov/ggml/blob/master/docs/gguf.md). The file is
// hostile: Open checks every count, size, offset and type before use, and allocates no more than a
// small multiple of the file's own size.
#ifndef EFEDLLM_MODEL_GGUF_H_
#define EFEDLLM_MODEL_GGUF_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/file.h"

namespace efedllm {

// A metadata array. Strings are views into the mapped file.
struct GgufArray {
  using Numbers = std::variant<std::vector<bool>, std::vector<int64_t>, std::vector<uint64_t>,
                               std::vector<double>>;
  std::variant<Numbers, std::vector<absl::string_view>> values;
};

using GgufValue = std::variant<bool, int64_t, uint64_t, double, absl::string_view, GgufArray>;

struct GgufTensor {
  absl::string_view name;
  uint32_t gguf_type = 0;       // see tensor/dtype.h; may be one that we can't compute with
  std::vector<uint64_t> shape;  // innermost first, as in the file: a matrix is {columns, rows}; 1
                                // to 4 entries, none 0
  absl::Span<const uint8_t> bytes;  // empty where the type's block size is unknown to us
};

// Immutable after Open; const methods are thread-safe. Everything returned is borrowed from it.
class GgufFile {
 public:
  // NotFound and the like from the file system; InvalidArgument: not a GGUF, truncated, or
  // malformed, saying where.
  static absl::StatusOr<GgufFile> Open(const std::string& path);
  // The same over bytes in memory that outlive the result (fuzzing, tests).
  static absl::StatusOr<GgufFile> Parse(absl::Span<const uint8_t> bytes);

  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* FindTensor(absl::string_view name) const;  // nullptr: there is none
  const GgufValue* FindValue(absl::string_view key) const;     // nullptr: there is none

  // Typed look-ups. NotFound: no such key; InvalidArgument: another type, or out of T's range.
  absl::StatusOr<uint64_t> GetUint(absl::string_view key) const;
  absl::StatusOr<double> GetFloat(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<absl::string_view> GetString(absl::string_view key) const;
  absl::StatusOr<absl::Span<const absl::string_view>> GetStrings(absl::string_view key) const;
  // Any numeric array, converted.
  absl::StatusOr<std::vector<double>> GetNumbers(absl::string_view key) const;

  uint64_t file_bytes() const { return bytes_.size(); }
  absl::Span<const uint8_t> header_bytes() const { return header_; }  // all before the tensor data
  const MappedFile& mapping() const { return mapping_; }              // empty after Parse

  // Lets the kernel drop the tensor's pages from our memory; reading brings them back. For tensors
  // that were read once (hashed, packed), so that a model larger than RAM can be worked through.
  void DropPages(const GgufTensor& tensor) const;

 private:
  MappedFile mapping_;
  absl::Span<const uint8_t> bytes_;
  absl::Span<const uint8_t> header_;
  absl::flat_hash_map<absl::string_view, GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<absl::string_view, size_t> tensor_index_;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GGUF_H_
