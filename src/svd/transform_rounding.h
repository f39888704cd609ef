// A transform in small integers, such as both ends of an edge can compute exactly with.
#ifndef EFEDLLM_SVD_TRANSFORM_ROUNDING_H_
#define EFEDLLM_SVD_TRANSFORM_ROUNDING_H_

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>

#include "svd/boundary_basis.h"

namespace efedllm {

// Of the backward matrix: int16 is as good as exact, int8 halves what one token reads from memory.
// So: 2 up to 1024 coefficients, then 1. The forward matrix always has int16.
uint32_t EntryBytesFor(size_t coefficients);

// Sets basis.backward, multiplier and backward_scale to what comes nearest to `backward`,
// [dimension] [coefficient], and forward and forward_scale to the inverse of what came of that: so
// that rounding `backward` costs nothing but a little of its optimality. norm: at least the largest
// singular value of `backward`, from which follow backward_norm and forward_residual.
void RoundTransform(const Eigen::MatrixXd& backward, double norm, uint32_t entry_bytes,
                    BoundaryBasis& basis);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_TRANSFORM_ROUNDING_H_
