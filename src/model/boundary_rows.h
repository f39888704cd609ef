// What crosses the boundaries of a model while it reads a text, for calibration.
#ifndef EFEDLLM_MODEL_BOUNDARY_ROWS_H_
#define EFEDLLM_MODEL_BOUNDARY_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "layers/compute.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "tensor/matrix.h"

namespace efedllm {

// Matrices of one shape in a file without a name: the kernel may keep them on disk when memory is
// short. Different threads may write different values.
class ScratchMatrices {
 public:
  // folder: of the file. ResourceExhausted: the disk has no room; others from the file system.
  static absl::StatusOr<ScratchMatrices> Create(const std::string& folder, size_t count,
                                                size_t rows, size_t cols);
  ScratchMatrices(ScratchMatrices&& other) noexcept;
  ScratchMatrices& operator=(ScratchMatrices&& other) noexcept;
  ~ScratchMatrices();

  size_t count() const { return count_; }
  MatrixRef at(size_t number) const;

 private:
  ScratchMatrices(float* data, size_t count, size_t rows, size_t cols)
      : data_(data), count_(count), rows_(rows), cols_(cols) {}

  float* data_;
  size_t count_, rows_, cols_;
};

// Runs sequences through one layer, as the engine does, in place. lengths: of the sequences, each
// from its first position on and within the model's context; batches: their rows behind each other,
// [sum of lengths, d_model], several times. The layer is loaded for this call. cancelled: asked
// between steps, may be null. Cancelled, or as StageExecutor.
absl::Status RunOneLayer(const ModelFile& file, const ModelConfig& config, uint32_t layer,
                         absl::Span<const uint32_t> lengths, absl::Span<const MatrixRef> batches,
                         Compute& compute, const std::function<bool()>& cancelled);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_BOUNDARY_ROWS_H_
