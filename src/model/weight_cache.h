// Tensors on disk, packed for the kernels (docs/numerics.md), under their content's name: a restart
// fetches nothing and maps what is there, a new plan fetches only what is new, and weights are in
// RAM once.
//
//   <dir>/<tensor id>.packed   see packed_file.h
//   <dir>/<tensor id>.part     verified chunks so far, in order
#ifndef EFEDLLM_MODEL_WEIGHT_CACHE_H_
#define EFEDLLM_MODEL_WEIGHT_CACHE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/file.h"
#include "layers/packed_matrix.h"
#include "model/weight_memory.h"
#include "model/weights.h"

namespace efedllm {

// One tensor in the kernels' form. Immutable; shared by the executors that use it.
class PackedTensor {
 public:
  // Packs GGUF bytes (spec.bytes() of them) into memory of its own. ResourceExhausted: there is not
  // enough.
  static absl::StatusOr<std::shared_ptr<const PackedTensor>> FromGguf(
      const TensorSpec& spec, absl::Span<const uint8_t> gguf);
  // Takes over a mapped .packed file; data begins at offset.
  PackedTensor(const TensorSpec& spec, MappedFile file, size_t offset);
  // A part of memory that tensors share: PackedBytes(spec) at offset, a multiple of 64.
  PackedTensor(const TensorSpec& spec, std::shared_ptr<const WeightMemory> memory, size_t offset);

  DType dtype() const { return dtype_; }
  uint64_t rows() const { return rows_; }
  uint64_t cols() const { return cols_; }
  absl::Span<const uint8_t> data() const { return data_; }  // aligned to 64 bytes
  // The same, as the kernels take it. matrix(): where rows() > 1; vector(): [cols()], where it
  // is 1.
  PackedMatrix matrix() const;
  absl::Span<const float> vector() const;

 private:
  const DType dtype_;
  const uint64_t rows_;
  const uint64_t cols_;
  // One of the two holds the data.
  const MappedFile file_;
  const std::shared_ptr<const WeightMemory> memory_;
  const absl::Span<const uint8_t> data_;
};

struct DiskSpace {
  uint64_t free = 0;  // bytes, for this user
  uint64_t total = 0;
};

// Thread-safe for different tensors; one caller at a time per tensor.
class WeightCache {
 public:
  // Makes the folder, and removes what a crash left half written. dir empty: FailedPrecondition.
  static absl::StatusOr<std::unique_ptr<WeightCache>> Open(const std::string& dir);

  // The packed tensor. NotFound: not cached, or damaged (then the file is removed and said so in
  // the log).
  absl::StatusOr<std::shared_ptr<const PackedTensor>> Get(const TensorSpec& spec);

  // Packs a tensor that is at hand as GGUF bytes, writes it, and returns the mapping. Trusts the
  // bytes.
  absl::StatusOr<std::shared_ptr<const PackedTensor>> Put(const TensorSpec& spec,
                                                          absl::Span<const uint8_t> gguf);

  // The same for a tensor that is packed already, without mapping it. ResourceExhausted: the disk
  // is full.
  absl::Status PutPacked(const TensorSpec& spec, absl::Span<const uint8_t> packed);
  // Whether Get would find a file; it may yet be damaged.
  bool Has(const TensorSpec& spec) const;
  // Removes all packed tensors but these. For a cache of one owner.
  absl::Status KeepOnly(const std::vector<TensorSpec>& specs);
  // Of the cache's disk.
  absl::StatusOr<DiskSpace> Space() const;
  absl::StatusOr<uint64_t> FreeBytes() const;  // for this user

  // Chunks that a fetch need not ask for again: [0, result) are in the .part file, and were just
  // verified again; what follows them is cut off. Ask once before a fetch goes on.
  absl::StatusOr<uint64_t> ChunksHeld(const TensorSpec& spec);
  // The next chunk. DataLoss: its size or SHA-256 is another; FailedPrecondition: it is not the
  // next one; ResourceExhausted: the disk is full. Nothing is kept of it then.
  absl::Status AddChunk(const TensorSpec& spec, uint64_t index, absl::Span<const uint8_t> bytes);
  // After the last chunk: packs the .part file into .packed, removes it, and returns the mapping.
  absl::StatusOr<std::shared_ptr<const PackedTensor>> Finish(const TensorSpec& spec);

 private:
  explicit WeightCache(std::string dir) : dir_(std::move(dir)) {}
  std::string Path(const TensorSpec& spec, absl::string_view suffix) const;

  const std::string dir_;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_WEIGHT_CACHE_H_
