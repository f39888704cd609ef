#include "svd/row_transform.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "svd/codec_grid.h"
#include "svd/coefficient_coder.h"
#include "svd/trellis.h"

namespace efedllm {
namespace {

constexpr float kFixedPoint = 2048;  // z has 11 fractional bits
// Numbers with larger bits are beyond what an int16 and the trellis take, or are none.
const uint32_t kLargestFixed = std::bit_cast<uint32_t>(32767.0F);
const uint32_t kLargestInput = std::bit_cast<uint32_t>(static_cast<float>(kMaxTrellisInput));
// A row's z has a mean square of 1, up to how fine scales are.
constexpr double kMostRms = 1.1;
// More than the roundings of f32 on the way back cost, relative to what is rounded.
constexpr double kFloatError = 0x1p-20;

}  // namespace

std::vector<uint32_t> KeptDimensions(const BoundaryBasis& basis) {
  std::vector<uint32_t> kept(basis.d_model);
  std::iota(kept.begin(), kept.end(), 0);
  std::erase_if(kept, [&](uint32_t i) {
    return std::binary_search(basis.massive.begin(), basis.massive.end(), i);
  });
  return kept;
}

RowTransform::RowTransform(const BoundaryBasis& basis, CodecSetting setting, size_t count,
                           const PackedMatrix* forward, const PackedMatrix* backward,
                           const CodecKernels& kernels)
    : basis_(basis),
      setting_(setting),
      n_(basis.coefficients()),
      count_(count),
      padded_(WholePanels(n_)),
      forward_(forward),
      backward_(backward),
      kernels_(kernels),
      kept_(KeptDimensions(basis)),
      centered_(n_),
      half_steps_(n_),
      trellis_errors_(4 * n_),
      trellis_choices_(n_) {
  kept_mean_.reserve(n_);
  for (const uint32_t i : kept_) {
    kept_mean_.push_back(basis.mean[i]);
    mean_norm_ = std::hypot(mean_norm_, double{basis.mean[i]});
  }
  if (setting.id != CodecId::kKlt) return;
  largest_multiplier_ = *std::max_element(basis.multiplier.begin(), basis.multiplier.end());
  for (const float scale : basis.forward_scale) {
    coefficient_factor_.push_back(scale *
                                  (2 * kTrellisUnit / kFixedPoint * InverseStepSize(setting.step)));
  }
}

bool RowTransform::ScaleRow(const float* row, std::optional<uint8_t>& scale) {
  const float* kept = row;
  if (n_ != basis_.d_model) {
    for (size_t i = 0; i < n_; ++i) centered_[i] = row[kept_[i]];
    kept = centered_.data();
  }
  kernels_.center(kept, kept_mean_.data(), n_, centered_.data());
  scale = NearestScale(kernels_.root_mean_square(centered_.data(), n_));
  return scale.has_value();
}

void RowTransform::Quantize(ConstMatrixRef rows, QuantizedRows& result) {
  result.stride = padded_;
  result.q.assign(rows.rows * padded_, 0);
  result.scale.assign(rows.rows, std::nullopt);
  result.most_error.assign(rows.rows, 0);
  const bool klt = setting_.id == CodecId::kKlt;
  if (klt) fixed_.assign(rows.rows * padded_, 0);
  for (size_t r = 0; r < rows.rows; ++r) {
    std::optional<uint8_t>& scale = result.scale[r];
    if (!ScaleRow(rows.row(r), scale)) continue;
    const float inverse = InverseScaleOf(*scale);
    if (!klt) {
      const float factor = inverse * (2 * kTrellisUnit * InverseStepSize(setting_.step));
      const uint32_t largest =
          kernels_.round_floats(centered_.data(), n_, factor, half_steps_.data());
      RoundRow(largest <= kLargestInput, r, result);
      continue;
    }
    int16_t* const fixed = fixed_.data() + r * padded_;
    if (kernels_.round_to_int16(centered_.data(), n_, inverse * kFixedPoint, fixed) <=
        kLargestFixed) {
      continue;
    }
    scale.reset();
    std::fill_n(fixed, padded_, int16_t{0});
  }
  if (!klt) return;
  sums_.resize(rows.rows * padded_);
  forward_->Project(kernels_, fixed_.data(), padded_, n_, rows.rows, sums_.data(), padded_, n_);
  for (size_t r = 0; r < rows.rows; ++r) {
    if (!result.scale[r]) continue;
    const uint32_t largest = kernels_.round_sums(sums_.data() + r * padded_, n_,
                                                 coefficient_factor_.data(), half_steps_.data());
    RoundRow(largest <= kLargestInput && FitsMultipliers(), r, result);
  }
}

// Whether what is multiplied with the backward matrix, one of the multiples nearest to half_steps_,
// is an int16.
bool RowTransform::FitsMultipliers() const {
  if (largest_multiplier_ == 1) return true;
  constexpr int32_t kFarthest = 2 * kTrellisUnit;
  int32_t largest = 0;
  for (size_t j = 0; j < count_; ++j) {
    largest = std::max(largest, (std::abs(half_steps_[j]) + kFarthest) * basis_.multiplier[j]);
  }
  return largest <= kMaxCoefficient * kTrellisUnit;
}

// half_steps_ to the row's q.
void RowTransform::RoundRow(bool fits, size_t r, QuantizedRows& result) {
  if (!fits) {
    result.scale[r].reset();
    return;
  }
  double square = kernels_.trellis(half_steps_.data(), count_, trellis_errors_.data(),
                                   trellis_choices_.data(), result.q.data() + r * padded_);
  for (size_t j = count_; j < n_; ++j) square += std::pow(half_steps_[j], 2);
  result.most_error[r] = MostError(square, *result.scale[r]);
}

// The triangle's inequality for z - B·c' = (z - z') + (1 - B·F)·z' + B·(F·z' - c'), where z' is z
// in fixed point, F·z' = c and c' is what the decoder takes for c; square: that of |c - c'| in
// parts of half steps.
double RowTransform::MostError(double square, uint8_t scale) const {
  const double root = std::sqrt(static_cast<double>(n_));
  const double part = 0.5 * StepSize(setting_.step) / kTrellisUnit;
  double error = part * (std::sqrt(square) + 0.5 * root);
  if (setting_.id == CodecId::kKlt) {
    error = basis_.backward_norm * error + basis_.forward_residual * kMostRms * root +
            0.5 / kFixedPoint * root;
  }
  error += kFloatError * (error + kMostRms * root);
  error = ScaleOf(scale) * error + kFloatError * mean_norm_;
  return error * error;
}

// Numbers to what the backward matrix, or kScalar's decoder, takes.
bool RowTransform::Expand(const int16_t* q, int16_t* multiples) const {
  const bool klt = setting_.id == CodecId::kKlt;
  TrellisState state;
  int32_t largest = 0;
  for (size_t j = 0; j < count_; ++j) {
    const int32_t product = state.Multiple(q[j]) * (klt ? basis_.multiplier[j] : 1);
    state.Pass(q[j]);
    largest = std::max(largest, std::abs(product));
    multiples[j] = static_cast<int16_t>(product);
  }
  return largest <= kMaxCoefficient;
}

bool RowTransform::Reconstruct(const int16_t* q, size_t stride, const uint8_t* scales,
                               MatrixRef out) {
  const bool klt = setting_.id == CodecId::kKlt;
  fixed_.assign(out.rows * padded_, 0);
  for (size_t r = 0; r < out.rows; ++r) {
    if (!Expand(q + r * stride, fixed_.data() + r * padded_)) return false;
  }
  if (klt) {
    sums_.resize(out.rows * padded_);
    backward_->Project(kernels_, fixed_.data(), padded_, count_, out.rows, sums_.data(), padded_,
                       n_);
  }
  for (size_t r = 0; r < out.rows; ++r) {
    const float unit = ScaleOf(scales[r]) * (0.5F * StepSize(setting_.step));
    const float factor = klt ? unit * basis_.backward_scale : unit;
    float* const to = n_ == basis_.d_model ? out.row(r) : centered_.data();
    if (klt) {
      kernels_.restore_int32(sums_.data() + r * padded_, kept_mean_.data(), n_, factor, to);
    } else {
      kernels_.restore_int16(fixed_.data() + r * padded_, kept_mean_.data(), n_, factor, to);
    }
    if (n_ == basis_.d_model) continue;
    for (size_t i = 0; i < n_; ++i) out.row(r)[kept_[i]] = to[i];
  }
  return true;
}

}  // namespace efedllm
