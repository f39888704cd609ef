// A matrix product with its bias, where the model has one.
#ifndef EFEDLLM_LAYERS_PROJECTION_H_
#define EFEDLLM_LAYERS_PROJECTION_H_

#include "absl/types/span.h"
#include "layers/packed_matrix.h"

namespace efedllm {

// Borrowed. y = x · wᵀ + bias.
struct Projection {
  PackedMatrix w;
  absl::Span<const float> bias;  // [w.rows], or empty: none
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_PROJECTION_H_
