#include "svd/row_transform.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "svd/codec_grid.h"
#include "svd/coefficient_coder.h"

namespace efedllm {
namespace {

constexpr float kFixedPoint = 2048;  // z has 11 fractional bits
// The bits of 32767: a larger number is beyond int16, or not one.
constexpr uint32_t kLargestBits = 0x46fffe00;

size_t WholePanels(size_t n) { return (n + kPanelOutputs - 1) / kPanelOutputs * kPanelOutputs; }

template <class Entry>
void Pack(const IntegerMatrix& matrix, size_t n, bool transposed, std::vector<Entry>& packed) {
  const size_t pairs = (n + 1) / 2;
  packed.assign(WholePanels(n) * pairs * 2, 0);
  for (size_t row = 0; row < n; ++row) {
    for (size_t col = 0; col < n; ++col) {
      const size_t output = transposed ? row : col;
      const size_t input = transposed ? col : row;
      const size_t at =
          ((output / kPanelOutputs * pairs + input / 2) * kPanelOutputs + output % kPanelOutputs) *
              2 +
          input % 2;
      packed[at] = static_cast<Entry>(matrix.values[row * n + col]);
    }
  }
}

}  // namespace

PackedMatrix::PackedMatrix(const IntegerMatrix& matrix, size_t n, bool transposed)
    : entry_bytes_(matrix.entry_bytes), pairs_((n + 1) / 2) {
  if (entry_bytes_ == 1) {
    Pack(matrix, n, transposed, int8_);
  } else {
    Pack(matrix, n, transposed, int16_);
  }
}

void PackedMatrix::Project(const CodecKernels& kernels, const int16_t* x, size_t x_stride,
                           size_t inputs, size_t rows, int32_t* y, size_t y_stride,
                           size_t outputs) const {
  ProjectionArgs args{};
  args.matrix = entry_bytes_ == 1 ? static_cast<const void*>(int8_.data()) : int16_.data();
  args.panel_pairs = pairs_;
  args.panels = WholePanels(outputs) / kPanelOutputs;
  args.pairs = (inputs + 1) / 2;
  args.x = x;
  args.x_stride = x_stride;
  args.rows = rows;
  args.y = y;
  args.y_stride = y_stride;
  (entry_bytes_ == 1 ? kernels.project_int8 : kernels.project_int16)(args);
}

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
      kept_(KeptDimensions(basis)) {
  for (const uint32_t i : kept_) kept_mean_.push_back(basis.mean[i]);
  if (setting.id != CodecId::kKlt) return;
  for (const float scale : basis.forward_scale) {
    coefficient_factor_.push_back(scale * (InverseStepSize(setting.step) / kFixedPoint));
  }
}

bool RowTransform::ScaleRow(const float* row, std::optional<uint8_t>& scale) {
  centered_.resize(n_);
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
  const bool klt = setting_.id == CodecId::kKlt;
  if (klt) fixed_.assign(rows.rows * padded_, 0);
  for (size_t r = 0; r < rows.rows; ++r) {
    std::optional<uint8_t>& scale = result.scale[r];
    if (!ScaleRow(rows.row(r), scale)) continue;
    const float factor =
        InverseScaleOf(*scale) * (klt ? kFixedPoint : InverseStepSize(setting_.step));
    int16_t* const to = (klt ? fixed_ : result.q).data() + r * padded_;
    const bool fits = kernels_.round_floats(centered_.data(), n_, factor, to) <= kLargestBits;
    if (!klt) std::fill(to + count_, to + padded_, int16_t{0});
    if (fits) continue;
    scale.reset();
    std::fill_n(to, padded_, int16_t{0});
  }
  if (klt) ProjectForward(rows.rows, result);
}

void RowTransform::ProjectForward(size_t rows, QuantizedRows& result) {
  sums_.resize(rows * padded_);
  forward_->Project(kernels_, fixed_.data(), padded_, n_, rows, sums_.data(), padded_, count_);
  for (size_t r = 0; r < rows; ++r) {
    int16_t* const q = result.q.data() + r * padded_;
    bool fits = kernels_.round_sums(sums_.data() + r * padded_, count_, coefficient_factor_.data(),
                                    q) <= kLargestBits;
    if (fits && basis_.backward.entry_bytes == 1) {
      int32_t largest = 0;
      for (size_t j = 0; j < count_; ++j) {
        largest = std::max(largest, std::abs(q[j] * basis_.multiplier[j]));
      }
      fits = largest <= kMaxCoefficient;
    }
    if (fits) continue;
    result.scale[r].reset();
    std::fill_n(q, padded_, int16_t{0});
  }
}

bool RowTransform::Reconstruct(const int16_t* q, size_t stride, const uint8_t* scales,
                               MatrixRef out) {
  const bool klt = setting_.id == CodecId::kKlt;
  centered_.resize(n_);
  if (klt) {
    fixed_.assign(out.rows * padded_, 0);
    for (size_t r = 0; r < out.rows; ++r) {
      int32_t largest = 0;
      for (size_t j = 0; j < count_; ++j) {
        const int32_t product = q[r * stride + j] * basis_.multiplier[j];
        largest = std::max(largest, std::abs(product));
        fixed_[r * padded_ + j] = static_cast<int16_t>(product);
      }
      if (largest > kMaxCoefficient) return false;
    }
    sums_.resize(out.rows * padded_);
    backward_->Project(kernels_, fixed_.data(), padded_, count_, out.rows, sums_.data(), padded_,
                       n_);
  }
  for (size_t r = 0; r < out.rows; ++r) {
    const float unit = ScaleOf(scales[r]) * StepSize(setting_.step);
    const float factor = klt ? unit * basis_.backward_scale : unit;
    float* const to = n_ == basis_.d_model ? out.row(r) : centered_.data();
    if (klt) {
      kernels_.restore_int32(sums_.data() + r * padded_, kept_mean_.data(), n_, factor, to);
    } else {
      kernels_.restore_int16(q + r * stride, kept_mean_.data(), n_, factor, to);
    }
    if (n_ == basis_.d_model) continue;
    for (size_t i = 0; i < n_; ++i) out.row(r)[kept_[i]] = to[i];
  }
  return true;
}

}  // namespace efedllm
