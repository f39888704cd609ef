// A matrix product as a layer has it: with its bias, and with low-rank factors in place of its
// matrix or beside it (docs/model-compression.md).
#ifndef EFEDLLM_LAYERS_PROJECTION_H_
#define EFEDLLM_LAYERS_PROJECTION_H_

#include "absl/types/span.h"
#include "layers/packed_matrix.h"

namespace efedllm {

// Borrowed. y = x · wᵀ + (x · aᵀ) · bᵀ + bias. There is w, or both factors, or all three.
struct Projection {
  PackedMatrix w;                // [outputs, inputs]; without data: none
  absl::Span<const float> bias;  // [outputs], or empty: none
  PackedMatrix factor_a = {};    // [rank, inputs]; without data: none
  PackedMatrix factor_b = {};    // [outputs, rank]

  bool is_factored() const { return factor_a.data != nullptr; }
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_PROJECTION_H_
