// How a model's predictions depend on what stands between its layers: backpropagation in f32, for
// calibration. Not the token path. Weights are streamed layer by layer, so that a model larger than
// RAM can be worked through.
#ifndef EFEDLLM_MODEL_GRADIENT_H_
#define EFEDLLM_MODEL_GRADIENT_H_

#include <cstdint>
#include <functional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "layers/compute.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "tensor/matrix.h"

namespace efedllm {

struct GradientOptions {
  uint32_t lowest = 0;  // the last boundary that is asked for; 0: the embedding's output
  uint32_t draws = 3;   // of what follows each token
  uint64_t seed = 1;
  std::function<bool()> cancelled;  // asked a few times in a layer; may be null
};

// Sequences that lie behind each other in every boundary's rows.
struct GradientInputs {
  absl::Span<const uint32_t> lengths;  // each from its first position on
  // What crosses a boundary, [sum of lengths, d_model]; boundary: lowest to the model's layers.
  absl::FunctionRef<ConstMatrixRef(uint32_t boundary)> rows;
};

// Draws a next token y for each position from the model's own distribution, and visits the
// boundaries from the model's layers down to `lowest` with the gradient of Σ log p(y) over a whole
// sequence: [draws * rows, d_model], one draw's rows behind the other's. E[g gᵀ] of these is the
// Fisher information. Routing to experts and the int8 rounding inside of products are held fixed.
// visit may end it with an error. Unimplemented: a file with factored matrices (model/factors.h);
// Cancelled; others come from the file and memory.
absl::Status VisitGradients(
    const ModelFile& file, const ModelConfig& config, const GradientInputs& inputs,
    const GradientOptions& options, Compute& compute,
    absl::FunctionRef<absl::Status(uint32_t boundary, ConstMatrixRef gradients)> visit);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GRADIENT_H_
