#include "svd/plain_rows.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "svd/kernels/codec_kernels.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are copied as they lie in memory");

constexpr size_t kBlock = 32;
constexpr size_t kPiece = 256;  // that is converted at a time
constexpr uint16_t kInfinity = 0x7c00;
// In place of a row's first f16: the row follows as f32. A NaN, so no number of a row.
constexpr uint16_t kF32Follows = 0xffff;
bool IsFinite(uint16_t half) { return (half & kInfinity) != kInfinity; }

// An f32 is finite exactly if its exponent is not all ones. No early exit: the loop vectorizes.
bool AllFinite(absl::Span<const float> row) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t not_finite = 0;
  for (const float value : row) {
    not_finite |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) & kExponent) == kExponent);
  }
  return not_finite == 0;
}

template <class T>
void AppendNumber(T value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendF32(absl::Span<const float> row, std::string& out) {
  out.append(reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
}

const CodecKernels& Kernels() {
  static const CodecKernels& kernels = BestCodecKernels();
  return kernels;
}

template <class T>
void AppendArray(const T* values, size_t n, std::string& out) {
  out.append(reinterpret_cast<const char*>(values), n * sizeof(T));
}

// False: a number is beyond f16's range. out then has a part of the row.
bool AppendF16(absl::Span<const float> row, std::string& out, double& squared_error) {
  std::array<uint16_t, kPiece> halves;
  std::array<float, kPiece> decoded;
  for (size_t begin = 0; begin < row.size(); begin += kPiece) {
    const absl::Span<const float> piece = row.subspan(begin, kPiece);
    Kernels().to_f16(piece.data(), piece.size(), halves.data());
    Kernels().from_f16(halves.data(), piece.size(), decoded.data());
    AppendArray(halves.data(), piece.size(), out);
    squared_error += Kernels().squared_error(piece.data(), decoded.data(), piece.size());
  }
  return std::isfinite(squared_error);
}

// The smallest f16 that is not below value; value >= 0.
uint16_t F16NotBelow(float value) {
  const uint16_t half = F32ToF16(value);
  return F16ToF32(half) < value ? static_cast<uint16_t>(half + 1) : half;
}

// As AppendF16.
bool AppendInt8(absl::Span<const float> row, std::string& out, double& squared_error) {
  std::array<int8_t, kBlock> integers{};
  std::array<float, kBlock> decoded;
  for (size_t begin = 0; begin < row.size(); begin += kBlock) {
    const absl::Span<const float> block = row.subspan(begin, kBlock);
    float largest = 0;
    for (const float value : block) largest = std::max(largest, std::fabs(value));
    const uint16_t scale_bits = F16NotBelow(largest / 127);
    if (!IsFinite(scale_bits)) return false;
    AppendNumber(scale_bits, out);
    const float scale = F16ToF32(scale_bits);
    // |value / scale| <= 127, as the scale was rounded up. Where it is 0, all values are.
    if (scale > 0) {
      Kernels().to_int8(block.data(), block.size(), scale, integers.data());
    } else {
      integers.fill(0);
    }
    Kernels().from_int8(integers.data(), block.size(), scale, decoded.data());
    AppendArray(integers.data(), block.size(), out);
    squared_error += Kernels().squared_error(block.data(), decoded.data(), block.size());
  }
  return true;
}

absl::Status CutOff() { return absl::InvalidArgumentError("the activations are cut off"); }

absl::Status NotFinite() { return absl::DataLossError("the activations are not all finite"); }

absl::Status ReadF32(absl::Span<const uint8_t>& bytes, absl::Span<float> row) {
  if (bytes.size() / sizeof(float) < row.size()) return CutOff();
  if (row.empty()) return absl::OkStatus();
  std::memcpy(row.data(), bytes.data(), row.size() * sizeof(float));
  bytes.remove_prefix(row.size() * sizeof(float));
  return AllFinite(row) ? absl::OkStatus() : NotFinite();
}

absl::Status ReadF16(absl::Span<const uint8_t>& bytes, absl::Span<float> row) {
  if (bytes.size() / sizeof(uint16_t) < row.size()) return CutOff();
  std::array<uint16_t, kPiece> halves;
  for (size_t begin = 0; begin < row.size(); begin += kPiece) {
    const absl::Span<float> piece = row.subspan(begin, kPiece);
    std::memcpy(halves.data(), bytes.data() + begin * sizeof(uint16_t),
                piece.size() * sizeof(uint16_t));
    Kernels().from_f16(halves.data(), piece.size(), piece.data());
  }
  bytes.remove_prefix(row.size() * sizeof(uint16_t));
  return AllFinite(row) ? absl::OkStatus() : NotFinite();
}

absl::Status ReadInt8(absl::Span<const uint8_t>& bytes, absl::Span<float> row) {
  if (bytes.size() < PlainRowBytes(CodecId::kInt8, row.size())) return CutOff();
  bool finite = true;
  for (size_t begin = 0; begin < row.size(); begin += kBlock) {
    uint16_t scale_bits;
    std::memcpy(&scale_bits, bytes.data(), sizeof(scale_bits));
    bytes.remove_prefix(sizeof(scale_bits));
    finite &= IsFinite(scale_bits);
    const float scale = F16ToF32(scale_bits);
    const absl::Span<float> block = row.subspan(begin, kBlock);
    Kernels().from_int8(reinterpret_cast<const int8_t*>(bytes.data()), block.size(), scale,
                        block.data());
    bytes.remove_prefix(block.size());
  }
  return finite ? absl::OkStatus() : NotFinite();
}

}  // namespace

uint64_t PlainRowBytes(CodecId codec, size_t cols) {
  switch (codec) {
    case CodecId::kInt8:
      return cols + (cols + kBlock - 1) / kBlock * sizeof(uint16_t);
    case CodecId::kF16:
      return uint64_t{cols} * sizeof(uint16_t);
    default:
      return uint64_t{cols} * sizeof(float);
  }
}

PlainRow AppendPlainRow(CodecId codec, absl::Span<const float> row, std::string& out) {
  if (codec == CodecId::kF32) {
    AppendF32(row, out);
    return {codec};
  }
  const size_t begin = out.size();
  PlainRow result{codec};
  const bool fits =
      AllFinite(row) && (codec == CodecId::kF16 ? AppendF16(row, out, result.squared_error)
                                                : AppendInt8(row, out, result.squared_error));
  if (fits) return result;
  out.resize(begin);
  AppendNumber(kF32Follows, out);
  AppendF32(row, out);
  return {CodecId::kF32};
}

absl::Status ReadPlainRow(CodecId codec, absl::Span<const uint8_t>& bytes, absl::Span<float> row) {
  if (codec == CodecId::kF32) return ReadF32(bytes, row);
  uint16_t first = 0;
  if (bytes.size() >= sizeof(first)) std::memcpy(&first, bytes.data(), sizeof(first));
  if (first == kF32Follows) {
    bytes.remove_prefix(sizeof(first));
    return ReadF32(bytes, row);
  }
  return codec == CodecId::kF16 ? ReadF16(bytes, row) : ReadInt8(bytes, row);
}

}  // namespace efedllm
