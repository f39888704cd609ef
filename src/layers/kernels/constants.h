// The numbers in the fixed polynomials: part of the definition (docs/numerics.md).
#ifndef EFEDLLM_LAYERS_KERNELS_CONSTANTS_H_
#define EFEDLLM_LAYERS_KERNELS_CONSTANTS_H_

namespace efedllm {

// e^x: below kExpLow it is 0, above kExpHigh infinity.
inline constexpr float kExpLow = -87.33654f;
inline constexpr float kExpHigh = 88.72283f;
inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kRoundToInt = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
inline constexpr int kRoundToIntBits = 0x4b400000;
inline constexpr float kLn2High = 0.693359375f;
inline constexpr float kLn2Low = -2.12194440e-4f;
// e^r = 1 + r + r²·p(r) for |r| <= ln(2)/2 (Moshier's Cephes), from the highest power down.
inline constexpr float kExpPoly[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                      4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};

// gelu(x) = x/2 · (1 + tanh(kGeluScale · (x + kGeluCubic · x³))).
inline constexpr float kGeluScale = 0.797884561f;  // sqrt(2/π)
inline constexpr float kGeluCubic = 0.044715f;

// The largest f16.
inline constexpr float kF16Max = 65504.0f;

// Blocks of activations that are smaller than this become zeros: 127/amax must not overflow.
inline constexpr float kQuantMin = 1e-30f;

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KERNELS_CONSTANTS_H_
