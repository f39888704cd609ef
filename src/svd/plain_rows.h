// Rows of activations as f32, f16 or int8, without a basis: what these codecs send, and what the
// others fall back to.
#ifndef EFEDLLM_SVD_PLAIN_ROWS_H_
#define EFEDLLM_SVD_PLAIN_ROWS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "svd/codec.h"

namespace efedllm {

// The bytes of a row as kInt8, kF16 or kF32, if its numbers fit.
uint64_t PlainRowBytes(CodecId codec, size_t cols);

// What a row became.
struct PlainRow {
  CodecId codec;  // kF32 where an f16 could not hold its numbers
  double squared_error = 0;
};
// codec: kInt8, kF16 or kF32. Appends the row.
PlainRow AppendPlainRow(CodecId codec, absl::Span<const float> row, std::string& out);

// Reads a row from the front of bytes and takes it off there. InvalidArgument: too few bytes;
// DataLoss: numbers that are not finite.
absl::Status ReadPlainRow(CodecId codec, absl::Span<const uint8_t>& bytes, absl::Span<float> row);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_PLAIN_ROWS_H_
