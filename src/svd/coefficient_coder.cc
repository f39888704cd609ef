#include "svd/coefficient_coder.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "svd/codec_grid.h"

namespace efedllm {
namespace {

constexpr int32_t kOctave = 64;
constexpr int32_t kClassWidth = kOctave / 4;
constexpr int32_t kLowestRatio = -5 * kOctave;
constexpr int32_t kHighestRatio = 4 * kOctave;  // of a table; above it low bits are raw
constexpr int32_t kLargestRatio = 15 * kOctave;
static_assert((kHighestRatio - kLowestRatio) / kClassWidth == kMagnitudeClasses);
// A coefficient whose sigma is an eighth of the step is 0 but once in ten thousand times.
constexpr int32_t kNegligibleRatio = -3 * kOctave;

// Activities in 1/256 that make a difference.
constexpr uint32_t kLeastActivity = 77, kMostActivity = 768;
constexpr uint32_t kLargestInRatio = 255;

int32_t LogRatio(int16_t log_sigma, uint32_t step) {
  return std::clamp(log_sigma + static_cast<int32_t>(step * kOctave / 16), kLowestRatio,
                    kLargestRatio);
}

size_t CountOf(const CoefficientModel& model, uint32_t step) {
  size_t count = model.log_sigma.size();
  while (count > 0 && LogRatio(model.log_sigma[count - 1], step) < kNegligibleRatio) --count;
  return count;
}

size_t WholeBlocks(size_t n) { return (n + kContextBlock - 1) / kContextBlock * kContextBlock; }

const std::array<uint16_t, kProbabilityOne + 1>& Costs() {
  static const auto costs = [] {
    std::array<uint16_t, kProbabilityOne + 1> result{};
    for (uint32_t f = 1; f <= kProbabilityOne; ++f) {
      result[f] = static_cast<uint16_t>(256 * kProbabilityBits - IntegerLog2(f, 8));
    }
    return result;
  }();
  return costs;
}

// Bits that a magnitude's number beyond the table has, written in 4.
constexpr int kLengthBits = 4;

}  // namespace

MagnitudeClass ClassOf(int32_t log_ratio) {
  int raw_bits = 0;
  if (log_ratio >= kHighestRatio) {
    raw_bits = (log_ratio - kHighestRatio) / kOctave + 1;
    log_ratio -= raw_bits * kOctave;
  }
  return {static_cast<uint8_t>((std::max(log_ratio, kLowestRatio) - kLowestRatio) / kClassWidth),
          static_cast<uint8_t>(raw_bits)};
}

void ActivityTracker::Add(uint32_t ratio_sum) {
  static const auto logs = [] {
    std::array<int16_t, kMostActivity + 1> result{};
    for (uint32_t a = kLeastActivity; a <= kMostActivity; ++a) {
      result[a] = static_cast<int16_t>(static_cast<int32_t>(IntegerLog2(a, 6)) - 8 * kOctave);
    }
    return result;
  }();
  activity_ = (activity_ + ratio_sum / (kUnit / 256 * kContextBlock)) / 2;
  log_activity_ = logs[std::clamp(activity_, kLeastActivity, kMostActivity)];
}

ActivityWeights::ActivityWeights(const CoefficientModel& model, uint32_t step)
    : log_ratio_(WholeBlocks(model.log_sigma.size()), kLowestRatio),
      shift_(log_ratio_.size()),
      weight_(log_ratio_.size()) {
  for (size_t j = 0; j < log_ratio_.size(); ++j) {
    if (j < model.log_sigma.size()) {
      log_ratio_[j] = static_cast<int16_t>(LogRatio(model.log_sigma[j], step));
    }
    const MagnitudeClass magnitude = ClassOf(log_ratio_[j]);
    shift_[j] = magnitude.raw_bits;
    // (64·|q| + 19) · weight is 2^20 where |q| + 0.3 is as large as expected.
    weight_[j] = static_cast<uint16_t>((1u << 20) / (model.tables[magnitude.table].mean + 19));
  }
}

uint32_t ActivityWeights::RatioSum(size_t first, const int16_t* q) const {
  uint32_t sum = 0;
  for (size_t j = 0; j < kContextBlock; ++j) {
    const uint32_t magnitude = static_cast<uint32_t>(std::abs(q[j])) >> shift_[first + j];
    sum += (std::min(magnitude, kLargestInRatio) * 64 + 19) * weight_[first + j] >> 8;
  }
  return sum;
}

uint32_t CostOf(RansSymbol symbol) {
  if (symbol.bits == kProbabilityBits) return Costs()[symbol.frequency];
  return (symbol.bits << 8) - IntegerLog2(symbol.frequency, 8);
}

CoefficientCoder::CoefficientCoder(const CoefficientModel& model, uint32_t step)
    : count_(CountOf(model, step)), weights_(model, step) {
  for (size_t i = 0; i < kMagnitudeClasses; ++i) {
    const MagnitudeTable& from = model.tables[i];
    Table& table = tables_[i];
    table.largest = static_cast<int32_t>(from.frequency.size()) - 1;
    table.at.resize(kProbabilityOne);
    uint32_t start = 0;
    const auto add = [&](uint16_t frequency) {
      std::fill_n(table.at.begin() + start, frequency, static_cast<uint8_t>(table.symbols.size()));
      table.symbols.push_back({static_cast<uint16_t>(start), frequency});
      start += frequency;
    };
    add(from.frequency[0]);
    for (size_t m = 1; m < from.frequency.size(); ++m) {
      add(from.frequency[m]);
      add(from.frequency[m]);
    }
    add(from.escape);
  }
}

void CoefficientCoder::AppendEscaped(uint32_t beyond, bool negative,
                                     std::vector<RansSymbol>& symbols) const {
  // beyond >= 1, as its length and the bits below the highest.
  const int length = std::bit_width(beyond) - 1;
  symbols.push_back(
      RawBits(static_cast<uint32_t>(length) << 1 | (negative ? 1u : 0u), kLengthBits + 1));
  const uint32_t rest = beyond - (1u << length);
  if (length > 8) symbols.push_back(RawBits(rest >> 8, length - 8));
  if (length > 0)
    symbols.push_back(RawBits(rest & 0xff & ((1u << length) - 1), std::min(length, 8)));
}

uint64_t CoefficientCoder::Append(const int16_t* q, std::vector<RansSymbol>& symbols) const {
  const size_t begin = symbols.size();
  ActivityTracker activity;
  for (size_t first = 0; first < count_; first += kContextBlock) {
    for (size_t j = first; j < std::min(first + kContextBlock, count_); ++j) {
      const MagnitudeClass magnitude = ClassOf(weights_.log_ratio()[j] + activity.log_activity());
      const Table& table = tables_[magnitude.table];
      const int32_t half = magnitude.raw_bits == 0 ? 0 : 1 << (magnitude.raw_bits - 1);
      const int32_t upper = (q[j] + half) >> magnitude.raw_bits;
      const int32_t size = std::abs(upper);
      const bool escaped = size > table.largest;
      const Symbol symbol =
          escaped ? table.symbols.back() : table.symbols[upper > 0 ? 2 * size - 1 : 2 * size];
      symbols.push_back({symbol.start, symbol.frequency, kProbabilityBits});
      if (escaped) {
        AppendEscaped(static_cast<uint32_t>(size - table.largest), upper < 0, symbols);
      }
      if (magnitude.raw_bits != 0) {
        const int32_t low = q[j] + half - (upper << magnitude.raw_bits);
        symbols.push_back(RawBits(static_cast<uint32_t>(low), magnitude.raw_bits));
      }
    }
    activity.Add(weights_.RatioSum(first, q + first));
  }
  uint64_t cost = 0;
  for (size_t i = begin; i < symbols.size(); ++i) cost += CostOf(symbols[i]);
  return cost;
}

bool CoefficientCoder::ReadOne(RansReader& reader, MagnitudeClass magnitude, int16_t& q) const {
  const Table& table = tables_[magnitude.table];
  const uint32_t index = table.at[reader.Peek(kProbabilityBits)];
  const Symbol symbol = table.symbols[index];
  reader.Take(symbol.start, symbol.frequency, kProbabilityBits);
  // 0, +1, -1, +2, …
  int32_t value = static_cast<int32_t>((index + 1) / 2);
  if (index % 2 == 0) value = -value;
  if (index + 1 == table.symbols.size()) {
    const uint32_t code = reader.TakeRaw(kLengthBits + 1);
    const int length = static_cast<int>(code >> 1);
    uint32_t beyond = 1u << length;
    if (length > 8) beyond += reader.TakeRaw(length - 8) << 8;
    if (length > 0) beyond += reader.TakeRaw(std::min(length, 8));
    value = table.largest + static_cast<int32_t>(beyond);
    if ((code & 1) != 0) value = -value;
  }
  if (magnitude.raw_bits != 0) {
    const int32_t low = static_cast<int32_t>(reader.TakeRaw(magnitude.raw_bits));
    const int64_t wide =
        (int64_t{value} << magnitude.raw_bits) + low - (int64_t{1} << (magnitude.raw_bits - 1));
    value =
        static_cast<int32_t>(std::clamp<int64_t>(wide, -kMaxCoefficient - 1, kMaxCoefficient + 1));
  }
  q = static_cast<int16_t>(value);
  return std::abs(value) <= kMaxCoefficient;
}

bool CoefficientCoder::Read(RansReader& reader, int16_t* q) const {
  ActivityTracker activity;
  std::fill_n(q, WholeBlocks(count_), int16_t{0});
  for (size_t first = 0; first < count_; first += kContextBlock) {
    for (size_t j = first; j < std::min(first + kContextBlock, count_); ++j) {
      const MagnitudeClass magnitude = ClassOf(weights_.log_ratio()[j] + activity.log_activity());
      if (!ReadOne(reader, magnitude, q[j])) return false;
    }
    activity.Add(weights_.RatioSum(first, q + first));
  }
  return true;
}

}  // namespace efedllm
