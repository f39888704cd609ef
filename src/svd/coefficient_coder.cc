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

// Bits that a magnitude's number beyond the table has, written in 4.
constexpr int kLengthBits = 4;

// beyond >= 1: its length, its sign, and the bits below the highest. cost: in bits.
RansSymbol* WriteEscaped(uint32_t beyond, bool negative, RansSymbol* to, uint32_t& cost) {
  const int length = std::bit_width(beyond) - 1;
  *to++ = RawBits(static_cast<uint32_t>(length) << 1 | (negative ? 1u : 0u), kLengthBits + 1);
  const uint32_t rest = beyond - (1u << length);
  if (length > 8) *to++ = RawBits(rest >> 8, length - 8);
  if (length > 0) *to++ = RawBits(rest & 0xff, std::min(length, 8));
  cost += static_cast<uint32_t>(kLengthBits + 1 + length);
  return to;
}

constexpr MagnitudeClass ComputeClass(int32_t log_ratio) {
  int raw_bits = 0;
  if (log_ratio >= kHighestRatio) {
    raw_bits = (log_ratio - kHighestRatio) / kOctave + 1;
    log_ratio -= raw_bits * kOctave;
  }
  return {static_cast<uint8_t>((std::max(log_ratio, kLowestRatio) - kLowestRatio) / kClassWidth),
          static_cast<uint8_t>(raw_bits)};
}

constexpr std::array<int16_t, kMostActivity + 1> kLogActivities = [] {
  std::array<int16_t, kMostActivity + 1> result{};
  for (uint32_t a = kLeastActivity; a <= kMostActivity; ++a) {
    result[a] = static_cast<int16_t>(static_cast<int32_t>(IntegerLog2(a, 6)) - 8 * kOctave);
  }
  return result;
}();

constexpr int32_t kFirstClassed = kLowestRatio - 2 * kOctave;
constexpr int32_t kLastClassed = kLargestRatio + 2 * kOctave;
constexpr auto kClasses = [] {
  std::array<MagnitudeClass, kLastClassed - kFirstClassed + 1> result{};
  for (int32_t ratio = kFirstClassed; ratio <= kLastClassed; ++ratio) {
    result[static_cast<size_t>(ratio - kFirstClassed)] = ComputeClass(ratio);
  }
  return result;
}();

}  // namespace

MagnitudeClass ClassOf(int32_t log_ratio) {
  return kClasses[static_cast<size_t>(log_ratio - kFirstClassed)];
}

void ActivityTracker::Add(uint32_t ratio_sum) {
  activity_ = (activity_ + ratio_sum / (kUnit / 256 * kContextBlock)) / 2;
  log_activity_ = kLogActivities[std::clamp(activity_, kLeastActivity, kMostActivity)];
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
    weight_[j] = static_cast<uint16_t>((1u << 20) / (model.tables[0][magnitude.table].mean + 19));
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

CoefficientCoder::CoefficientCoder(const CoefficientModel& model, uint32_t step)
    : count_(CountOf(model, step)), weights_(model, step) {
  for (size_t i = 0; i < kQuantizers * kMagnitudeClasses; ++i) {
    const MagnitudeTable& from = model.tables[i % kQuantizers][i / kQuantizers];
    Table& table = tables_[i % kQuantizers][i / kQuantizers];
    table.largest = static_cast<int32_t>(from.frequency.size()) - 1;
    uint32_t start = 0;
    const auto add = [&](int32_t value, uint16_t frequency) {
      const auto index = static_cast<uint8_t>(table.symbols.size());
      for (size_t part = (start + (1u << kPartBits) - 1) >> kPartBits;
           part << kPartBits < start + frequency; ++part) {
        table.first[part] = index;
      }
      table.symbols.push_back(
          {static_cast<uint16_t>(start), frequency, static_cast<int16_t>(value),
           static_cast<uint16_t>(256 * kProbabilityBits - IntegerLog2(frequency, 8))});
      start += frequency;
      const int32_t position = value + table.largest + 1;
      table.of_value[static_cast<size_t>(position)] = table.symbols.back();
    };
    table.of_value.resize(2 * static_cast<size_t>(table.largest) + 3);
    add(0, from.frequency[0]);
    for (int32_t m = 1; m <= table.largest; ++m) {
      add(m, from.frequency[static_cast<size_t>(m)]);
      add(-m, from.frequency[static_cast<size_t>(m)]);
    }
    add(table.largest + 1, from.escape);
    table.of_value.front() = table.of_value.back();
  }
}

RansSymbol* CoefficientCoder::Write(const int16_t* q, RansSymbol* to, uint64_t& cost) const {
  ActivityTracker activity;
  TrellisState state;
  uint32_t table_cost = 0, raw_cost = 0;
  for (size_t first = 0; first < count_; first += kContextBlock) {
    for (size_t j = first; j < std::min(first + kContextBlock, count_); ++j) {
      const MagnitudeClass magnitude = ClassOf(weights_.log_ratio()[j] + activity.log_activity());
      const Table& table = tables_[state.quantizer()][magnitude.table];
      state.Pass(q[j]);
      const int32_t half = (1 << magnitude.raw_bits) >> 1;
      const int32_t upper = (q[j] + half) >> magnitude.raw_bits;
      const int32_t escape = table.largest + 1;
      const int32_t position = std::clamp(upper, -escape, escape) + escape;
      const Symbol symbol = table.of_value[static_cast<size_t>(position)];
      *to++ = {symbol.start, symbol.frequency, kProbabilityBits};
      table_cost += symbol.cost;
      if (std::abs(upper) >= escape) {
        to = WriteEscaped(static_cast<uint32_t>(std::abs(upper) - table.largest), upper < 0, to,
                          raw_cost);
      }
      if (magnitude.raw_bits != 0) {
        const int32_t low = q[j] + half - (upper << magnitude.raw_bits);
        *to++ = RawBits(static_cast<uint32_t>(low), magnitude.raw_bits);
        raw_cost += magnitude.raw_bits;
      }
    }
    activity.Add(weights_.RatioSum(first, q + first));
  }
  cost = uint64_t{table_cost} + uint64_t{256} * raw_cost;
  return to;
}

int32_t CoefficientCoder::ReadEscaped(RansReader& reader, const Table& table) const {
  const uint32_t code = reader.TakeRaw(kLengthBits + 1);
  const int length = static_cast<int>(code >> 1);
  uint32_t beyond = 1u << length;
  if (length > 8) beyond += reader.TakeRaw(length - 8) << 8;
  if (length > 0) beyond += reader.TakeRaw(std::min(length, 8));
  const int32_t value = table.largest + static_cast<int32_t>(beyond);
  return (code & 1) != 0 ? -value : value;
}

__attribute__((always_inline)) inline const CoefficientCoder::Symbol& CoefficientCoder::SymbolAt(
    const Table& table, uint32_t at) {
  const Symbol* symbol = table.symbols.data() + table.first[at >> kPartBits];
  // Mostly this is enough; a branch that can't be foreseen would cost more than the rest.
  symbol += at >= uint32_t{symbol->start} + symbol->frequency ? 1 : 0;
  while (at >= uint32_t{symbol->start} + symbol->frequency) ++symbol;
  return *symbol;
}

__attribute__((always_inline)) inline bool CoefficientCoder::ReadOne(RansReader& reader,
                                                                     const Table& table,
                                                                     int raw_bits,
                                                                     int16_t& q) const {
  const Symbol& symbol = SymbolAt(table, reader.Peek(kProbabilityBits));
  reader.Take(symbol.start, symbol.frequency, kProbabilityBits);
  int32_t value = symbol.value;
  if (value > table.largest) value = ReadEscaped(reader, table);
  if (raw_bits != 0) {
    const int32_t low = static_cast<int32_t>(reader.TakeRaw(raw_bits));
    const int64_t wide = (int64_t{value} << raw_bits) + low - (int64_t{1} << (raw_bits - 1));
    value =
        static_cast<int32_t>(std::clamp<int64_t>(wide, -kMaxCoefficient - 1, kMaxCoefficient + 1));
  }
  q = static_cast<int16_t>(value);
  return std::abs(value) <= kMaxCoefficient;
}

bool CoefficientCoder::Read(absl::Span<const RowToRead> rows) const {
  // Side by side: what is read of a row in a turn lies in a cache line.
  struct Row {
    RansReader reader;
    int16_t* q;
    ActivityTracker activity;
    TrellisState state;
  };
  std::vector<Row> states;
  states.reserve(rows.size());
  for (const RowToRead& row : rows) {
    std::fill_n(row.q, WholeBlocks(count_), int16_t{0});
    states.push_back({*row.reader, row.q, {}, {}});
  }
  bool in_range = true;
  for (size_t first = 0; first < count_; first += kContextBlock) {
    for (size_t j = first; j < std::min(first + kContextBlock, count_); ++j) {
      const int32_t log_ratio = weights_.log_ratio()[j];
      for (Row& row : states) {
        const MagnitudeClass magnitude = ClassOf(log_ratio + row.activity.log_activity());
        in_range &= ReadOne(row.reader, tables_[row.state.quantizer()][magnitude.table],
                            magnitude.raw_bits, row.q[j]);
        row.state.Pass(row.q[j]);
      }
    }
    for (Row& row : states) row.activity.Add(weights_.RatioSum(first, row.q + first));
  }
  for (size_t r = 0; r < rows.size(); ++r) *rows[r].reader = states[r].reader;
  return in_range;
}

}  // namespace efedllm
