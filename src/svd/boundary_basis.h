// What the codecs know of the activations between two layers: calibrated once per model and
// boundary, and the same bytes at both ends of an edge.
//
// A row x of activations is coded as scale and coefficients: z = (x - mean) / scale without the
// massive dimensions, scale its rounded RMS; c = forward · z (kKlt) or c_i = weight_i · z_i
// (kScalar); each coefficient becomes the nearest multiple of one step for all. The rows of
// `forward` are the Karhunen-Loève transform of M·z, where M = F^(1/2) and F is how much the
// model's predictions mind a change of z (Fisher information): so that equal steps do equal harm.
// Ordered by falling variance.
#ifndef EFEDLLM_SVD_BOUNDARY_BASIS_H_
#define EFEDLLM_SVD_BOUNDARY_BASIS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sha256.h"

namespace efedllm {

// Classes of a coefficient's expected magnitude, and the shape of its distribution in each.
inline constexpr size_t kMagnitudesPerOctave = 4;

// A square matrix in int8: entry (r, c) is values[r·d + c] · row_scale[r].
struct Int8Matrix {
  std::vector<int8_t> values;
  std::vector<float> row_scale;
};

// How one of the two codecs sees the boundary.
struct CoefficientModel {
  // 64·log2 of the standard deviation of each coefficient, rounded: what a coefficient costs, in
  // integers.
  std::vector<int16_t> log_sigma;
  // Mean KL in nats that coding this boundary alone costs, per step²: measured.
  float kl_per_step2 = 0;
};

struct BoundaryBasis {
  uint32_t boundary = 0;  // after so many layers; 0: the embedding
  uint32_t d_model = 0;
  std::vector<uint32_t>
      massive;              // dimensions that are sent as f16 beside the coefficients, ascending
  std::vector<float> mean;  // [d_model]
  float largest_scale = 0;  // beyond it a row is no longer of the calibrated kind
  // Of the energy of (x - mean) / scale, by falling share, before and after the massive dimensions
  // were taken out.
  std::vector<float> spectrum, spectrum_with_massive;

  std::vector<float> scalar_weight;  // [d_model]
  CoefficientModel scalar;
  Int8Matrix forward;   // [coefficient][dimension]
  Int8Matrix backward;  // [coefficient][dimension]: z ≈ Σ_j c_j · backward row j
  CoefficientModel klt;

  // The bytes that are stored and sent, little-endian, a multiple of four; and their SHA-256, which
  // names the basis.
  std::string Serialize() const;
  Sha256Digest id() const;
};

// bytes may come from a peer or a file. InvalidArgument: not a basis, cut off, another version,
// sizes that disagree, numbers that are not finite.
absl::StatusOr<BoundaryBasis> ParseBoundaryBasis(absl::Span<const uint8_t> bytes);

// Bytes of the largest valid basis of a boundary of that many dimensions: what a reader must
// accept, and refuse beyond.
uint64_t MaxBasisBytes(uint32_t d_model);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_BOUNDARY_BASIS_H_
