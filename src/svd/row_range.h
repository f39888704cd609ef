// Whether rows of activations are as large as such rows are: one of the checks that cost nothing.
#ifndef EFEDLLM_SVD_ROW_RANGE_H_
#define EFEDLLM_SVD_ROW_RANGE_H_

#include <optional>

#include "absl/status/status.h"
#include "svd/boundary_basis.h"
#include "tensor/matrix.h"

namespace efedllm {

// The size of a row is its RMS without the quarter of its dimensions in which it is largest, taken
// in blocks: the few massive dimensions of real models, which come and go with the token, don't
// count. Nothing is refused for being small: a token whose embedding is nothing may stay nothing.
class RowRange {
 public:
  // A row may be this many times as large as any that the basis was calibrated on. No honest row
  // comes near it.
  static constexpr float kFactor = 64;

  // basis: of the boundary that the rows cross; null: none, and then no row is too large, for who
  // knows how large the next token's may be.
  explicit RowRange(const BoundaryBasis* basis);

  // DataLoss: a row is too large; says which and how large.
  absl::Status Check(ConstMatrixRef rows) const;

 private:
  std::optional<double> largest_;  // mean square, as calibrated
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_ROW_RANGE_H_
