#include "coordinator/audit_difference.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "common/check.h"

namespace efedllm {
namespace {

// A row is noisy where it differs by less than this share of itself, and another row beyond.
constexpr double kNoiseAtMost = 0.5;
// What is left of a difference that one factor explains.
constexpr double kUnexplained = 0.01;

using Row = absl::Span<const float>;

uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }

bool SameBits(Row a, Row b) {
  return std::equal(a.begin(), a.end(), b.begin(),
                    [](float x, float y) { return Bits(x) == Bits(y); });
}

double Energy(Row row) {
  double sum = 0;
  for (const float value : row) sum += double{value} * value;
  return sum;
}

double DistanceEnergy(Row a, Row b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = double{a[i]} - b[i];
    sum += d * d;
  }
  return sum;
}

// 0 of 0 is nothing, something of 0 is much.
double Share(double part, double whole) {
  if (part == 0) return 0;
  return whole == 0 ? INFINITY : std::sqrt(part / whole);
}

class Comparison {
 public:
  Comparison(ConstMatrixRef claimed, ConstMatrixRef replayed, uint32_t first_row,
             absl::Span<const ConstMatrixRef> after_layer)
      : claimed_(claimed), replayed_(replayed), first_row_(first_row), after_layer_(after_layer) {
    CHECK(claimed.cols == replayed.cols && first_row + claimed.rows <= replayed.rows);
  }

  RowDifference Run() {
    for (uint32_t row = 0; row < claimed_.rows; ++row) LookAt(row);
    if (!differing_.empty()) Classify();
    return result_;
  }

 private:
  Row Claimed(uint32_t row) const { return {claimed_.row(row), claimed_.cols}; }
  Row Ours(uint32_t row) const { return {replayed_.row(first_row_ + row), replayed_.cols}; }
  template <class Holds>
  bool AllDiffering(Holds holds) const {
    return std::all_of(differing_.begin(), differing_.end(), holds);
  }

  void LookAt(uint32_t row) {
    const Row claimed = Claimed(row), ours = Ours(row);
    if (SameBits(claimed, ours)) return;
    const double relative = Share(DistanceEnergy(claimed, ours), Energy(ours));
    for (uint32_t i = 0; i < claimed.size(); ++i) {
      if (Bits(claimed[i]) == Bits(ours[i])) continue;
      if (result_.values++ == 0) {
        result_.row = row;
        result_.dimension = i;
        result_.claimed = claimed[i];
        result_.replayed = ours[i];
        result_.relative = relative;
      }
    }
    result_.largest_relative = std::max(result_.largest_relative, relative);
    differing_.push_back(row);
    ++result_.rows;
  }

  void Classify() {
    if (FlippedBit() || SignFlip() || FlippedBits() || Zeros() || Copied() || StoppedEarly() ||
        Scaled())
      return;
    result_.pattern =
        result_.largest_relative <= kNoiseAtMost ? FaultPattern::kNoise : FaultPattern::kOther;
  }

  bool OneDimension() const {
    return result_.values == result_.rows && AllDiffering([&](uint32_t row) {
             return Bits(Claimed(row)[result_.dimension]) != Bits(Ours(row)[result_.dimension]);
           });
  }

  bool FlippedBit() {
    const uint32_t flipped = Bits(result_.claimed) ^ Bits(result_.replayed);
    if (!OneDimension() || std::popcount(flipped) != 1) return false;
    if (flipped == 1u << 31 && result_.rows > 1) return false;  // a sign flip
    if (!AllDiffering([&](uint32_t row) {
          return (Bits(Claimed(row)[result_.dimension]) ^ Bits(Ours(row)[result_.dimension])) ==
                 flipped;
        })) {
      return false;
    }
    result_.pattern = FaultPattern::kFlippedBit;
    result_.bit = static_cast<uint32_t>(std::countr_zero(flipped));
    return true;
  }

  bool SignFlip() {
    if (!OneDimension() || !AllDiffering([&](uint32_t row) {
          return Claimed(row)[result_.dimension] == -Ours(row)[result_.dimension];
        })) {
      return false;
    }
    result_.pattern = FaultPattern::kSignFlip;
    return true;
  }

  bool FlippedBits() {
    if (result_.values != result_.rows || !AllDiffering([&](uint32_t row) {
          const Row claimed = Claimed(row), ours = Ours(row);
          int bits = 0;
          for (size_t i = 0; i < ours.size(); ++i) {
            bits += std::popcount(Bits(claimed[i]) ^ Bits(ours[i]));
          }
          return bits == 1;
        })) {
      return false;
    }
    result_.pattern = FaultPattern::kFlippedBits;
    return true;
  }

  bool Zeros() {
    if (!AllDiffering([&](uint32_t row) { return Energy(Claimed(row)) == 0; })) return false;
    result_.pattern = FaultPattern::kZeros;
    return true;
  }

  // Most of the rows; what a copy of another sequence's looks like, nobody can tell.
  bool Copied() {
    std::optional<uint32_t> from;
    size_t copies = 0;
    for (const uint32_t row : differing_) {
      for (uint32_t other = 0; other < replayed_.rows; ++other) {
        if (!SameBits(Claimed(row), {replayed_.row(other), replayed_.cols})) continue;
        if (!from) from = other;
        ++copies;
        break;
      }
    }
    if (2 * copies <= differing_.size()) return false;
    result_.pattern = FaultPattern::kCopied;
    result_.copied_row = from;
    return true;
  }

  bool StoppedEarly() {
    for (size_t i = 0; i < after_layer_.size(); ++i) {
      const ConstMatrixRef at = after_layer_[i];
      if (at.rows != replayed_.rows || !AllDiffering([&](uint32_t row) {
            return SameBits(Claimed(row), {at.row(first_row_ + row), at.cols});
          })) {
        continue;
      }
      result_.pattern = FaultPattern::kStoppedEarly;
      result_.layers_skipped = static_cast<uint32_t>(after_layer_.size() - i);
      return true;
    }
    return false;
  }

  bool Scaled() {
    double product = 0, energy = 0;
    for (const uint32_t row : differing_) {
      const Row claimed = Claimed(row), ours = Ours(row);
      for (size_t i = 0; i < ours.size(); ++i) product += double{claimed[i]} * ours[i];
      energy += Energy(ours);
    }
    if (energy == 0) return false;
    const double factor = product / energy;
    double left = 0, difference = 0;
    for (const uint32_t row : differing_) {
      const Row claimed = Claimed(row), ours = Ours(row);
      difference += DistanceEnergy(claimed, ours);
      for (size_t i = 0; i < ours.size(); ++i) {
        const double d = claimed[i] - factor * ours[i];
        left += d * d;
      }
    }
    if (!(left < kUnexplained * kUnexplained * difference)) return false;
    result_.pattern = FaultPattern::kScaled;
    result_.factor = factor;
    return true;
  }

  const ConstMatrixRef claimed_, replayed_;
  const uint32_t first_row_;
  const absl::Span<const ConstMatrixRef> after_layer_;
  std::vector<uint32_t> differing_;
  RowDifference result_;
};

}  // namespace

absl::string_view FaultPatternName(FaultPattern pattern) {
  switch (pattern) {
    case FaultPattern::kNone:
      return "the coding alone";
    case FaultPattern::kFlippedBit:
      return "flipped bit";
    case FaultPattern::kFlippedBits:
      return "flipped bits";
    case FaultPattern::kSignFlip:
      return "sign flip";
    case FaultPattern::kZeros:
      return "zeros";
    case FaultPattern::kCopied:
      return "copied rows";
    case FaultPattern::kStoppedEarly:
      return "layers skipped";
    case FaultPattern::kScaled:
      return "scaled";
    case FaultPattern::kNoise:
      return "noise";
    case FaultPattern::kOther:
      return "other rows";
  }
  return "?";
}

RowDifference CompareRows(ConstMatrixRef claimed, ConstMatrixRef replayed, uint32_t first_row,
                          absl::Span<const ConstMatrixRef> after_layer) {
  return Comparison(claimed, replayed, first_row, after_layer).Run();
}

}  // namespace efedllm
