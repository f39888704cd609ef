// The grids of numbers that the codecs round to, and logarithms in integers: the same bits on every
// machine (docs/numerics.md, "Codecs").
#ifndef EFEDLLM_SVD_CODEC_GRID_H_
#define EFEDLLM_SVD_CODEC_GRID_H_

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
uint32_t IntegerLog2(uint32_t value, int fraction_bits);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_CODEC_GRID_H_
