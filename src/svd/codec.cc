#include "svd/codec.h"

#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

static_assert(std::endian::native == std::endian::little,
              "the f32 codec copies floats as they lie in memory");

absl::Status DecodeF32(absl::Span<const uint8_t> bytes, MatrixRef out) {
  const uint64_t expected = MaxEncodedBytes(CodecId::kF32, out.rows, out.cols);
  if (bytes.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat("the activations have ", bytes.size(),
                                                   " bytes; [", out.rows, ", ", out.cols,
                                                   "] f32 take ", expected));
  }
  if (expected == 0) return absl::OkStatus();
  std::memcpy(out.data, bytes.data(), expected);
  // An f32 is finite exactly if its exponent is not all ones. No early exit: the loop vectorizes.
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t not_finite = 0;
  for (const float value : out.span()) {
    not_finite |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) & kExponent) == kExponent);
  }
  if (not_finite != 0) {
    return absl::DataLossError("the activations are not all finite");
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<CodecId> CodecFromNumber(uint32_t number) {
  if (number == static_cast<uint32_t>(CodecId::kF32)) return CodecId::kF32;
  return std::nullopt;
}

absl::string_view CodecName(CodecId codec) {
  switch (codec) {
    case CodecId::kF32:
      return "f32";
  }
  return "?";
}

uint64_t MaxEncodedBytes(CodecId codec, size_t rows, size_t cols) {
  switch (codec) {
    case CodecId::kF32:
      return uint64_t{rows} * cols * sizeof(float);
  }
  return 0;
}

void EncodeActivations(CodecId codec, ConstMatrixRef activations, std::string& out) {
  switch (codec) {
    case CodecId::kF32:
      out.append(reinterpret_cast<const char*>(activations.data),
                 activations.span().size() * sizeof(float));
  }
}

absl::Status DecodeActivations(CodecId codec, absl::Span<const uint8_t> bytes, MatrixRef out) {
  switch (codec) {
    case CodecId::kF32:
      return DecodeF32(bytes, out);
  }
  return absl::InvalidArgumentError("the activations' codec is unknown");
}

}  // namespace efedllm
