#include "svd/boundary_basis.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

static_assert(std::endian::native == std::endian::little,
              "a basis is copied as its numbers lie in memory");

constexpr uint32_t kMagic = 0x53424645;  // "EFBS"
constexpr uint32_t kVersion = 3;
constexpr size_t kPadding = 4;  // a basis is fetched as tensors are, in whole f32
constexpr uint32_t kMaxDimensions = 1 << 16;

class Writer {
 public:
  template <class T>
  void Number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  template <class T>
  void Numbers(const std::vector<T>& values) {
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
  void Matrix(const IntegerMatrix& matrix) {
    Number(matrix.entry_bytes);
    if (matrix.entry_bytes == 2) return Numbers(matrix.values);
    Numbers(std::vector<int8_t>(matrix.values.begin(), matrix.values.end()));
  }
  void Model(const CoefficientModel& model) {
    Numbers(model.log_sigma);
    for (const auto& tables : model.tables) {
      for (const MagnitudeTable& table : tables) {
        Number(static_cast<uint8_t>(table.frequency.size() - 1));
        Numbers(table.frequency);
        Number(table.escape);
        Number(table.mean);
      }
    }
    Number(model.noise_gain);
    for (const float kl : model.kl) Number(kl);
  }
  std::string Take() && { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Every read is checked against what is left, so that no vector is larger than the input.
class Reader {
 public:
  explicit Reader(absl::Span<const uint8_t> bytes) : total_(bytes.size()), rest_(bytes) {}

  template <class T>
  absl::Status Number(T& value) {
    if (rest_.size() < sizeof(T)) return CutOff();
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_.remove_prefix(sizeof(T));
    return absl::OkStatus();
  }
  template <class T>
  absl::Status Numbers(uint64_t count, std::vector<T>& values) {
    if (rest_.size() / sizeof(T) < count) return CutOff();
    values.resize(count);
    if (count != 0) std::memcpy(values.data(), rest_.data(), count * sizeof(T));
    rest_.remove_prefix(count * sizeof(T));
    return absl::OkStatus();
  }
  absl::Status Finite(float& value) {
    RETURN_IF_ERROR(Number(value));
    return std::isfinite(value) ? absl::OkStatus() : NotFinite();
  }
  absl::Status Finite(uint64_t count, std::vector<float>& values) {
    RETURN_IF_ERROR(Numbers(count, values));
    for (const float value : values) {
      if (!std::isfinite(value)) return NotFinite();
    }
    return absl::OkStatus();
  }
  absl::Status Matrix(uint64_t n, IntegerMatrix& matrix) {
    RETURN_IF_ERROR(Number(matrix.entry_bytes));
    if (matrix.entry_bytes == 2) return Numbers(n * n, matrix.values);
    if (matrix.entry_bytes != 1) return Bad("its matrices have no known type");
    std::vector<int8_t> values;
    RETURN_IF_ERROR(Numbers(n * n, values));
    matrix.values.assign(values.begin(), values.end());
    return absl::OkStatus();
  }
  absl::Status Model(uint64_t n, CoefficientModel& model) {
    RETURN_IF_ERROR(Numbers(n, model.log_sigma));
    for (auto& tables : model.tables) {
      for (MagnitudeTable& table : tables) RETURN_IF_ERROR(Table(table));
    }
    RETURN_IF_ERROR(Finite(model.noise_gain));
    bool negative = model.noise_gain <= 0;
    for (float& kl : model.kl) {
      RETURN_IF_ERROR(Finite(kl));
      negative |= kl < 0;
    }
    return negative ? Bad("a measure is negative") : absl::OkStatus();
  }
  // Padding alone is left.
  absl::Status End() const {
    if ((total_ - rest_.size() + kPadding - 1) / kPadding * kPadding != total_) {
      return Bad("its size is another");
    }
    for (const uint8_t byte : rest_) {
      if (byte != 0) return Bad("its padding is not empty");
    }
    return absl::OkStatus();
  }

  static absl::Status Bad(absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("not a boundary's basis: ", what));
  }

 private:
  static absl::Status CutOff() { return Bad("it is cut off"); }
  static absl::Status NotFinite() { return Bad("a number is not finite"); }

  absl::Status Table(MagnitudeTable& table) {
    uint8_t largest = 0;
    RETURN_IF_ERROR(Number(largest));
    if (largest > kMaxMagnitude) return Bad("a table of probabilities is too long");
    RETURN_IF_ERROR(Numbers(uint64_t{largest} + 1, table.frequency));
    RETURN_IF_ERROR(Number(table.escape));
    RETURN_IF_ERROR(Number(table.mean));
    uint64_t sum = uint64_t{table.frequency[0]} + table.escape;
    bool all = table.frequency[0] != 0 && table.escape != 0;
    for (size_t m = 1; m < table.frequency.size(); ++m) {
      sum += uint64_t{2} * table.frequency[m];
      all &= table.frequency[m] != 0;
    }
    if (!all || sum != kProbabilityOne) return Bad("probabilities that don't sum to one");
    if (table.mean == 0 || table.mean > 64 * kMaxMagnitude) return Bad("a mean out of range");
    return absl::OkStatus();
  }

  const size_t total_;
  absl::Span<const uint8_t> rest_;
};

absl::Status ReadShape(Reader& in, BoundaryBasis& basis) {
  uint32_t magic = 0, version = 0, massive = 0;
  RETURN_IF_ERROR(in.Number(magic));
  RETURN_IF_ERROR(in.Number(version));
  if (magic != kMagic) return Reader::Bad("it begins with other bytes");
  if (version != kVersion) return Reader::Bad(absl::StrCat("its version is ", version));
  RETURN_IF_ERROR(in.Number(basis.boundary));
  RETURN_IF_ERROR(in.Number(basis.d_model));
  RETURN_IF_ERROR(in.Number(massive));
  if (basis.d_model == 0 || basis.d_model > kMaxDimensions || massive > basis.d_model / 4) {
    return Reader::Bad("its dimensions are out of range");
  }
  RETURN_IF_ERROR(in.Numbers(massive, basis.massive));
  for (size_t i = 0; i < basis.massive.size(); ++i) {
    if (basis.massive[i] >= basis.d_model || (i > 0 && basis.massive[i] <= basis.massive[i - 1])) {
      return Reader::Bad("its massive dimensions are not ascending");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadRowStatistics(Reader& in, BoundaryBasis& basis) {
  RETURN_IF_ERROR(in.Finite(basis.d_model, basis.mean));
  RETURN_IF_ERROR(in.Finite(basis.largest_scale));
  RETURN_IF_ERROR(in.Number(basis.first_scale));
  uint16_t scales = 0;
  RETURN_IF_ERROR(in.Number(scales));
  if (basis.first_scale + scales > 256) return Reader::Bad("its scales are out of range");
  RETURN_IF_ERROR(in.Numbers(scales, basis.scale_frequency));
  uint64_t sum = 0;
  for (const uint16_t frequency : basis.scale_frequency) {
    if (frequency == 0) return Reader::Bad("a scale that never comes");
    sum += frequency;
  }
  if (sum + 2 > kProbabilityOne) return Reader::Bad("its scales leave nothing for others");
  RETURN_IF_ERROR(in.Finite(basis.d_model, basis.spectrum_with_massive));
  return in.Finite(basis.coefficients(), basis.spectrum);
}

absl::Status ReadTransform(Reader& in, BoundaryBasis& basis) {
  const uint64_t n = basis.coefficients();
  RETURN_IF_ERROR(in.Matrix(n, basis.forward));
  RETURN_IF_ERROR(in.Finite(n, basis.forward_scale));
  RETURN_IF_ERROR(in.Matrix(n, basis.backward));
  RETURN_IF_ERROR(in.Numbers(n, basis.multiplier));
  for (const uint16_t multiplier : basis.multiplier) {
    if (multiplier == 0 || multiplier > kMaxMultiplier) {
      return Reader::Bad("a multiplier out of range");
    }
  }
  RETURN_IF_ERROR(in.Finite(basis.backward_scale));
  // 2^-30 to 1, so that nothing that is decoded can overflow.
  const uint32_t bits = std::bit_cast<uint32_t>(basis.backward_scale);
  if ((bits & 0x7fffffu) != 0 || bits > 0x3f800000u || bits < 0x30800000u) {
    return Reader::Bad("the scale of its matrix is no power of two");
  }
  RETURN_IF_ERROR(in.Finite(basis.backward_norm));
  RETURN_IF_ERROR(in.Finite(basis.forward_residual));
  if (basis.backward_norm <= 0 || basis.forward_residual < 0) {
    return Reader::Bad("a norm is negative");
  }
  return absl::OkStatus();
}

}  // namespace

double CoefficientModel::StepFor(double kl_budget) const {
  constexpr double kLeast = 1e-12;
  const double fine = std::max(kLeast, double{kl[0]}), coarse = std::max(fine, double{kl[1]});
  const double fine_step = double{kMeasuredSteps[0]}, coarse_step = double{kMeasuredSteps[1]};
  if (kl_budget <= fine) return fine_step * std::sqrt(std::max(0.0, kl_budget) / fine);
  if (kl_budget >= coarse) return coarse_step * std::sqrt(kl_budget / coarse);
  const double share = std::log(kl_budget / fine) / std::log(coarse / fine);
  return fine_step * std::pow(coarse_step / fine_step, share);
}

std::string BoundaryBasis::Serialize() const {
  Writer out;
  out.Number(kMagic);
  out.Number(kVersion);
  out.Number(boundary);
  out.Number(d_model);
  out.Number(static_cast<uint32_t>(massive.size()));
  out.Numbers(massive);
  out.Numbers(mean);
  out.Number(largest_scale);
  out.Number(first_scale);
  out.Number(static_cast<uint16_t>(scale_frequency.size()));
  out.Numbers(scale_frequency);
  out.Numbers(spectrum_with_massive);
  out.Numbers(spectrum);
  out.Model(scalar);
  out.Matrix(forward);
  out.Numbers(forward_scale);
  out.Matrix(backward);
  out.Numbers(multiplier);
  out.Number(backward_scale);
  out.Number(backward_norm);
  out.Number(forward_residual);
  out.Model(klt);
  std::string bytes = std::move(out).Take();
  bytes.resize((bytes.size() + kPadding - 1) / kPadding * kPadding, '\0');
  return bytes;
}

Sha256Digest BoundaryBasis::id() const {
  const std::string bytes = Serialize();
  return Sha256({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

absl::StatusOr<BoundaryBasis> ParseBoundaryBasis(absl::Span<const uint8_t> bytes) {
  Reader in(bytes);
  BoundaryBasis basis;
  RETURN_IF_ERROR(ReadShape(in, basis));
  RETURN_IF_ERROR(ReadRowStatistics(in, basis));
  RETURN_IF_ERROR(in.Model(basis.coefficients(), basis.scalar));
  RETURN_IF_ERROR(ReadTransform(in, basis));
  RETURN_IF_ERROR(in.Model(basis.coefficients(), basis.klt));
  RETURN_IF_ERROR(in.End());
  return basis;
}

uint64_t MaxBasisBytes(uint32_t d_model) {
  const uint64_t d = d_model;
  // Vectors of rows, dimensions and coefficients, both matrices of int16, tables.
  return 4 * d * d + 34 * d + 2 * kQuantizers * kMagnitudeClasses * (2 * kMaxMagnitude + 16) + 1024;
}

}  // namespace efedllm
