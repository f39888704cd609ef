// A model as it lies on disk: metadata in GGUF's words and tensors, whatever is behind them: one
// GGUF, a GGUF split into several files, or a Hugging Face folder. The files are mapped, and they
// are hostile: everything is checked before use, and no more is allocated than a small multiple of
// the files' own size.
#ifndef EFEDLLM_MODEL_MODEL_FILE_H_
#define EFEDLLM_MODEL_MODEL_FILE_H_

#include <cstdint>
#include <deque>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/file.h"

namespace efedllm {

// A metadata array.
struct MetadataArray {
  using Numbers = std::variant<std::vector<bool>, std::vector<int64_t>, std::vector<uint64_t>,
                               std::vector<double>>;
  std::variant<Numbers, std::vector<absl::string_view>> values;
};

using MetadataValue =
    std::variant<bool, int64_t, uint64_t, double, absl::string_view, MetadataArray>;

struct ModelTensor {
  absl::string_view name;
  uint32_t gguf_type = 0;       // see tensor/dtype.h; may be one that we can't compute with
  std::vector<uint64_t> shape;  // innermost first, as in GGUF: a matrix is {columns, rows}; 1 to 4
                                // entries, none 0
  // Without any alignment. Empty where the type's block size is unknown to us, and for a tensor in
  // pieces.
  absl::Span<const uint8_t> bytes;
  // Of a tensor that is scattered in a Hugging Face folder: its bytes in order, in pieces of one
  // size. Experts have a matrix for each, and Q and K of llama another order of rows than GGUF.
  std::vector<absl::Span<const uint8_t>> pieces;

  uint64_t size_bytes() const;
  // The bytes [offset, offset + length), which must be in the tensor. Borrowed from the file where
  // they lie in one piece, else copied into scratch.
  absl::Span<const uint8_t> Bytes(uint64_t offset, uint64_t length,
                                  std::vector<uint8_t>& scratch) const;
};

// One file of the model.
struct ModelPart {
  std::string path;  // empty after Parse
  MappedFile mapping;
  absl::Span<const uint8_t> bytes;
  absl::Span<const uint8_t> header;  // of them, all that is not tensor data
};

// What a reader of a format fills in. Views point into parts, strings and vectors.
struct ModelContents {
  // A view of the text that lives as long as this.
  absl::string_view Keep(std::string text);
  void Set(absl::string_view key, MetadataValue value);  // in place of what the key had
  // An F32 tensor that no file has. shape: as ModelTensor's.
  void AddF32(absl::string_view name, std::vector<uint64_t> shape, std::vector<float> values);

  std::vector<ModelPart> parts;
  absl::flat_hash_map<absl::string_view, MetadataValue> values;
  std::vector<ModelTensor> tensors;
  std::deque<std::string> strings;
  std::deque<std::vector<float>> vectors;
};

// What people call the model at this path: without folders, ".gguf" and "-00001-of-00003", and the
// repository's name for a snapshot in Hugging Face's cache.
std::string ModelNameFromPath(const std::string& path);

// Immutable after Open; const methods are thread-safe. Everything returned is borrowed from it.
class ModelFile {
 public:
  // A folder is a Hugging Face model; a file is a GGUF, and any part of a split one stands for all
  // parts, which lie beside it. NotFound and the like from the file system; InvalidArgument:
  // malformed, saying where; Unimplemented: a feature that we lack, by name. Messages begin with
  // the path.
  static absl::StatusOr<ModelFile> Open(const std::string& path);
  // One GGUF in memory, whose bytes outlive the result (fuzzing, tests).
  static absl::StatusOr<ModelFile> Parse(absl::Span<const uint8_t> bytes);
  // InvalidArgument: two tensors of one name.
  static absl::StatusOr<ModelFile> Create(ModelContents contents);

  const std::string& path() const { return path_; }  // as given to Open; empty after Parse
  // An error that someone found in this model, beginning with its path.
  absl::Status About(const absl::Status& status) const;

  const std::vector<ModelTensor>& tensors() const { return contents_.tensors; }
  const ModelTensor* FindTensor(absl::string_view name) const;  // nullptr: there is none
  const MetadataValue* FindValue(absl::string_view key) const;  // nullptr: there is none
  const absl::flat_hash_map<absl::string_view, MetadataValue>& values() const {
    return contents_.values;
  }

  // Typed look-ups. NotFound: no such key; InvalidArgument: another type, or out of T's range.
  absl::StatusOr<uint64_t> GetUint(absl::string_view key) const;
  absl::StatusOr<double> GetFloat(absl::string_view key) const;
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<absl::string_view> GetString(absl::string_view key) const;
  absl::StatusOr<absl::Span<const absl::string_view>> GetStrings(absl::string_view key) const;
  // Any numeric array, converted.
  absl::StatusOr<std::vector<double>> GetNumbers(absl::string_view key) const;

  const std::vector<ModelPart>& parts() const { return contents_.parts; }  // one or more
  uint64_t file_bytes() const;                                             // of all parts

  // Lets the kernel drop the tensor's pages from our memory; reading brings them back. For tensors
  // that were read once (hashed, packed), so that a model larger than RAM can be worked through.
  void DropPages(const ModelTensor& tensor) const;
  // The same for a part of a tensor; no effect on bytes that are not the file's.
  void DropPages(absl::Span<const uint8_t> bytes) const;

 private:
  ModelContents contents_;
  std::string path_;
  absl::flat_hash_map<absl::string_view, size_t> tensor_index_;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_MODEL_FILE_H_
