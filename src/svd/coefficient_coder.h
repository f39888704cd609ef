// Quantized coefficients as symbols of an entropy coder: which table of probabilities a
// coefficient takes follows from its quantizer, its expected magnitude at this step, and from how
// large the row's coefficients before it came out (docs/numerics.md, "Codecs").
#ifndef EFEDLLM_SVD_COEFFICIENT_CODER_H_
#define EFEDLLM_SVD_COEFFICIENT_CODER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "svd/boundary_basis.h"
#include "svd/rans.h"
#include "svd/trellis.h"

namespace efedllm {

// Coefficients that share one context.
inline constexpr size_t kContextBlock = 16;
// Magnitudes beyond it can't be coded.
inline constexpr int32_t kMaxCoefficient = 32767;

// A class and how many low bits of the magnitude are coded as they are, since all their values are
// about as likely.
struct MagnitudeClass {
  uint8_t table;
  uint8_t raw_bits;
};
// log_ratio: 64·log2(sigma / step).
MagnitudeClass ClassOf(int32_t log_ratio);

// The context of a row's coefficients: how large they came out, over what was expected, as
// 64·log2.
class ActivityTracker {
 public:
  int32_t log_activity() const { return log_activity_; }
  // ratio_sum: over a block of kContextBlock coefficients, each kUnit where it is as expected.
  void Add(uint32_t ratio_sum);
  static constexpr uint32_t kUnit = 1 << 12;

 private:
  uint32_t activity_ = 256;  // in 1/256
  int32_t log_activity_ = 0;
};

// What coefficient j of a model adds to a context at one step.
class ActivityWeights {
 public:
  ActivityWeights(const CoefficientModel& model, uint32_t step);

  // 64·log2(sigma / step), within the classes' reach; of all coefficients, then padding.
  const std::vector<int16_t>& log_ratio() const { return log_ratio_; }
  // q: the coefficients from first on, kContextBlock of them, 0 beyond the last.
  uint32_t RatioSum(size_t first, const int16_t* q) const;

 private:
  std::vector<int16_t> log_ratio_;
  std::vector<uint8_t> shift_;
  std::vector<uint16_t> weight_;
};

class CoefficientCoder {
 public:
  CoefficientCoder(const CoefficientModel& model, uint32_t step);

  // Leading coefficients that are coded; those behind them are so small at this step that they are
  // taken for 0.
  size_t count() const { return count_; }

  // Most symbols of a row.
  size_t most_symbols() const { return kMostSymbols * count_; }
  // q: [count()], padded with zeros to a whole block; magnitudes up to kMaxCoefficient. Writes the
  // row's symbols, returns their end; cost: what they cost, in 1/256 bits.
  RansSymbol* Write(const int16_t* q, RansSymbol* symbols, uint64_t& cost) const;
  // Reads a row from each of several streams, which keeps the CPU busier than one after the other.
  // q: of each row room for count() rounded up to a whole block. False: no row can be like one of
  // them.
  struct RowToRead {
    RansReader* reader;
    int16_t* q;
  };
  bool Read(absl::Span<const RowToRead> rows) const;

 private:
  static constexpr int kPartBits = 4;
  static constexpr size_t kParts = kProbabilityOne >> kPartBits;
  static constexpr size_t kMostSymbols = 5;  // of a coefficient: its own, an escape's, low bits

  struct Symbol {
    uint16_t start;
    uint16_t frequency;
    int16_t value;
    uint16_t cost;  // in 1/256 bits
  };
  // Symbols are 0, +1, -1, +2, …, and the escape last: the likeliest begin at 0, which costs an
  // empty coder nothing.
  struct Table {
    int32_t largest = 0;  // magnitude with a symbol; one more stands for the escape
    std::vector<Symbol> symbols;
    // The first symbol that reaches into each of so many equal parts: a byte for each probability
    // would be found faster, but a token's tables come from memory, and take longer to get there.
    std::array<uint8_t, kParts> first;
    std::vector<Symbol> of_value;  // from -largest - 1 to largest + 1
  };

  static const Symbol& SymbolAt(const Table& table, uint32_t at);
  bool ReadOne(RansReader& reader, const Table& table, int raw_bits, int16_t& q) const;
  int32_t ReadEscaped(RansReader& reader, const Table& table) const;

  size_t count_ = 0;
  ActivityWeights weights_;
  std::array<std::array<Table, kMagnitudeClasses>, kQuantizers> tables_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_COEFFICIENT_CODER_H_
