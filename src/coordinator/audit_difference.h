// Where and how the outputs that a node claims differ from those of a replay: bad memory looks
// other than a lie.
#ifndef EFEDLLM_COORDINATOR_AUDIT_DIFFERENCE_H_
#define EFEDLLM_COORDINATOR_AUDIT_DIFFERENCE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/matrix.h"

namespace efedllm {

enum class FaultPattern {
  kNone,          // the values are equal: only their coding differs
  kFlippedBit,    // one value, one bit; or the same bit of one dimension in several rows
  kFlippedBits,   // one bit of one value in each of several rows, here and there
  kSignFlip,      // one dimension has the opposite sign in several rows
  kZeros,         // rows of zeros
  kCopied,        // rows of other positions
  kStoppedEarly,  // what comes out before the last layers
  kScaled,        // all values by one factor
  kNoise,         // small against the row
  kOther,         // rows that have nothing to do with those of the replay
};
// "flipped bit", "sign flip", ...
absl::string_view FaultPatternName(FaultPattern pattern);

struct RowDifference {
  FaultPattern pattern = FaultPattern::kNone;
  uint64_t rows = 0, values = 0;  // that differ
  // The first row and dimension that differ. Of the matrices, not of the sequence.
  uint32_t row = 0, dimension = 0;
  float claimed = 0, replayed = 0;  // there
  // Of the differing rows: RMS of the difference by RMS of the replayed row, at the first one and
  // at the worst.
  double relative = 0, largest_relative = 0;
  double factor = 0;                       // of kScaled
  std::optional<uint32_t> bit;             // of kFlippedBit, 31: the sign
  std::optional<uint32_t> copied_row;      // of kCopied: of the replay's rows
  std::optional<uint32_t> layers_skipped;  // of kStoppedEarly
};

// claimed: [n, d_model]; they stand beside rows [first_row, first_row + n) of replayed, [at least
// first_row + n, d_model], whose other rows are looked at for copies. after_layer: as replayed,
// before the first layer and after each but the last, may be empty. The first row of the result
// counts from first_row on: 0 is claimed's first.
RowDifference CompareRows(ConstMatrixRef claimed, ConstMatrixRef replayed, uint32_t first_row,
                          absl::Span<const ConstMatrixRef> after_layer);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_DIFFERENCE_H_
