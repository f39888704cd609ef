// What the codecs know of the activations between two layers: calibrated once per model and
// boundary, and the same bytes at both ends of an edge.
//
// A row x of activations is coded as scale and coefficients: z = (x - mean) / scale without the
// massive dimensions, scale its rounded RMS; c = forward · z (kKlt) or c = z (kScalar); each
// coefficient becomes a multiple of half of one step for all (svd/trellis.h). The rows of `forward`
// are the Karhunen-Loève transform of M·z, where M = F^(1/2) and F is how much the model's
// predictions mind a change of z (Fisher information): so that equal steps do equal harm. Ordered
// by falling variance. docs/numerics.md has the arithmetic.
#ifndef EFEDLLM_SVD_BOUNDARY_BASIS_H_
#define EFEDLLM_SVD_BOUNDARY_BASIS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sha256.h"
#include "svd/trellis.h"

namespace efedllm {

// Probabilities are multiples of 1 / kProbabilityOne.
inline constexpr int kProbabilityBits = 13;
inline constexpr uint32_t kProbabilityOne = 1u << kProbabilityBits;
inline constexpr uint32_t kMaxMagnitude = 126;
// Classes of a coefficient's expected magnitude: class i is sigma/step in 2^[(i-20)/4, (i-19)/4).
inline constexpr size_t kMagnitudeClasses = 36;

// How the quantized coefficients of one class are distributed; as likely above zero as below.
struct MagnitudeTable {
  // [0] of zero, [m] of +m and of -m each; at most kMaxMagnitude + 1. All at least 1, and zero +
  // 2 · others + escape = kProbabilityOne.
  std::vector<uint16_t> frequency = {kProbabilityOne / 2};
  uint16_t escape = kProbabilityOne / 2;  // of anything beyond
  uint32_t mean = 1;                      // of the magnitude, in 1/64
};

// How one of the two codecs sees the boundary.
struct CoefficientModel {
  // 64·log2 of the standard deviation of each coefficient, rounded. One per dimension that is not
  // massive.
  std::vector<int16_t> log_sigma;
  // By quantizer and class.
  std::array<std::array<MagnitudeTable, kMagnitudeClasses>, kQuantizers> tables;
  // RMS of a row's error where each of its coefficients has one of RMS 1.
  float noise_gain = 1;
  // Mean KL in nats that coding this boundary alone costs, at each of kMeasuredSteps.
  std::array<float, 2> kl = {};

  // The step that costs so much: on the power law through both measured points between them, and
  // as its square beyond.
  double StepFor(double kl_budget) const;
};
// Of the steps that levels choose, one of the finer and one of the coarser.
inline constexpr std::array<float, 2> kMeasuredSteps = {0.125F, 0.5F};

// A matrix of small integers; rows are coefficients, columns the dimensions that are not massive.
struct IntegerMatrix {
  uint32_t entry_bytes = 2;     // 1: all entries fit in int8
  std::vector<int16_t> values;  // [coefficient][dimension]
};

struct BoundaryBasis {
  uint32_t boundary = 0;  // after so many layers; 0: the embedding
  uint32_t d_model = 0;
  // Dimensions that are sent as f16 beside the coefficients, ascending; at most a quarter.
  std::vector<uint32_t> massive;
  std::vector<float> mean;  // [d_model]; 0 in the massive dimensions
  float largest_scale = 0;  // beyond it a row is no longer of the calibrated kind
  // How often scales first_scale + i of the grid (ScaleOf) come up, of kProbabilityOne; at
  // least 2 are left for all others.
  uint8_t first_scale = 0;
  std::vector<uint16_t> scale_frequency;
  // Of the energy of (x - mean) / scale, by falling share, before and after the massive dimensions
  // were taken out: [d_model], [coefficients()].
  std::vector<float> spectrum_with_massive, spectrum;

  CoefficientModel scalar;
  IntegerMatrix forward;             // c_j = Σ_i forward[j][i] · z_i · forward_scale[j]
  std::vector<float> forward_scale;  // [coefficients()]
  IntegerMatrix backward;  // z_i = backward_scale · Σ_j c_j · multiplier[j] · backward[j][i]
  std::vector<uint16_t> multiplier;  // [coefficients()], 1 to kMaxMultiplier
  float backward_scale = 0;          // a power of two
  // At least the largest singular values of what multiplies c, and of 1 - backward · forward (with
  // the roundings of f32): what bounds a row's error before it is decoded.
  float backward_norm = 0, forward_residual = 0;
  CoefficientModel klt;

  size_t coefficients() const { return d_model - massive.size(); }
  // The bytes that are stored and sent, little-endian, and their SHA-256, which names the basis.
  std::string Serialize() const;
  Sha256Digest id() const;
};
inline constexpr uint16_t kMaxMultiplier = 64;

// bytes may come from a peer or a file. InvalidArgument: not a basis, cut off, another version,
// sizes that disagree, numbers that are not finite.
absl::StatusOr<BoundaryBasis> ParseBoundaryBasis(absl::Span<const uint8_t> bytes);

// Bytes of the largest valid basis of a boundary of that many dimensions: what a reader must
// accept, and refuse beyond.
uint64_t MaxBasisBytes(uint32_t d_model);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_BOUNDARY_BASIS_H_
