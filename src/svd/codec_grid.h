// The grids of numbers that the codecs round to, and logarithms in integers: the same bits on every
// machine (docs/numerics.md, "Codecs").
#ifndef EFEDLLM_SVD_CODEC_GRID_H_
#define EFEDLLM_SVD_CODEC_GRID_H_

#include <bit>
#include <cstdint>
#include <optional>

namespace efedllm {

// A row's scale: 2^((index - 128) / 8).
float ScaleOf(uint8_t index);
float InverseScaleOf(uint8_t index);
// The index nearest to rms (in the logarithm), the smallest for all below the grid; nullopt: beyond
// the grid, or not a number.
std::optional<uint8_t> NearestScale(float rms);

// 2^(index / 16), what StepSize divides by.
float InverseStepSize(uint32_t index);

// log2(value) in 1/2^fraction_bits, rounded down. value > 0, fraction_bits <= 16.
constexpr uint32_t IntegerLog2(uint32_t value, int fraction_bits) {
  const int whole = std::bit_width(value) - 1;
  uint64_t mantissa = uint64_t{value} << (31 - whole);  // [2^31, 2^32)
  auto log = static_cast<uint32_t>(whole);
  for (int bit = 0; bit < fraction_bits; ++bit) {
    mantissa = mantissa * mantissa >> 31;
    const uint64_t twice = mantissa >> 32;
    mantissa >>= twice;
    log = log << 1 | static_cast<uint32_t>(twice);
  }
  return log;
}

}  // namespace efedllm

#endif  // EFEDLLM_SVD_CODEC_GRID_H_
