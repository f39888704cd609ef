// One layer's weights for the backward pass: as the engine has them, and transposed.
#ifndef EFEDLLM_MODEL_GRADIENT_WEIGHTS_H_
#define EFEDLLM_MODEL_GRADIENT_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/thread_team.h"
#include "layers/compute.h"
#include "layers/packed_matrix.h"
#include "layers/projection.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/tensor_loader.h"
#include "model/weight_memory.h"

namespace efedllm {

// A layer's tensors by their names in it ("attn_q"), as Linear wants them.
class LayerTensorMap {
 public:
  // Unimplemented: the model has tensors in other shapes than this pass knows.
  static absl::StatusOr<LayerTensorMap> Load(const ModelConfig& config, const ModelFile& file,
                                             uint32_t layer, Compute& compute);

  absl::Span<const float> Vector(absl::string_view part) const;  // empty: there is none
  // rows [first, first + rows) of a matrix that the layer has, and of its bias where it has one.
  Projection Rows(absl::string_view part, size_t first, size_t rows) const;

 private:
  absl::flat_hash_map<std::string, std::shared_ptr<const PackedTensor>> tensors_;
};

// Rows of a tensor of the file.
struct TensorRows {
  std::string name;
  uint64_t first = 0, rows = 0;
};

// Matrices [rows, cols] stacked to W, as f32, so that Linear computes y = x · W.
class TransposedMatrix {
 public:
  // In place of what it held. NotFound: no such tensor; InvalidArgument: another shape;
  // ResourceExhausted: no memory.
  absl::Status Load(const ModelFile& file, absl::Span<const TensorRows> parts, uint64_t cols,
                    ThreadTeam& team);
  // [cols, all rows], borrowed until the next Load.
  PackedMatrix matrix() const;

 private:
  uint64_t rows_ = 0, cols_ = 0;
  uint64_t reserved_ = 0;  // bytes
  std::shared_ptr<WeightMemory> memory_;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GRADIENT_WEIGHTS_H_
