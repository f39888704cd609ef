// A codec turns a boundary's activations into the bytes of a hop and back. Exact arithmetic: both
// ends, a replay and an audit get the same bits.
#ifndef EFEDLLM_SVD_CODEC_H_
#define EFEDLLM_SVD_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensor/matrix.h"

namespace efedllm {

// The numbers stand in messages.
enum class CodecId : uint32_t { kF32 = 1 };

// nullopt: a number that this build doesn't know.
std::optional<CodecId> CodecFromNumber(uint32_t number);
absl::string_view CodecName(CodecId codec);  // "f32"

// Most bytes that a [rows, cols] block takes; overflow-free for sizes within StepLimits.
uint64_t MaxEncodedBytes(CodecId codec, size_t rows, size_t cols);

// Appends the encoding of activations to out.
void EncodeActivations(CodecId codec, ConstMatrixRef activations, std::string& out);

// bytes come from a peer. InvalidArgument: not an encoding of exactly [out.rows, out.cols] values;
// DataLoss: they are not all finite.
absl::Status DecodeActivations(CodecId codec, absl::Span<const uint8_t> bytes, MatrixRef out);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_CODEC_H_
