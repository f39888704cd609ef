// Range asymmetric numeral systems (Duda 2009): an entropy coder whose whole state is one number.
// What is written last is read first, so a writer takes its symbols as a list. A stream of a few
// dozen bytes must not pay for a state's start and end: the state starts as small as it can be, and
// where no byte is left the reader takes none.
#ifndef EFEDLLM_SVD_RANS_H_
#define EFEDLLM_SVD_RANS_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace efedllm {

// An interval of [0, 2^bits), 1 <= bits <= 15. frequency >= 1.
struct RansSymbol {
  uint16_t start;
  uint16_t frequency;
  uint16_t bits;
};
// `bits` bits as they are.
inline RansSymbol RawBits(uint32_t value, int bits) {
  return {static_cast<uint16_t>(value), 1, static_cast<uint16_t>(bits)};
}

// Between symbols, a state is at least this, except before the first byte was written.
inline constexpr uint32_t kRansLow = 1u << 24;
// Where a state starts: the reader knows the end of the stream, or it doesn't.
inline constexpr uint32_t kRansStart = 1;
inline constexpr uint32_t kRansOpenStart = kRansLow;

// A stream to be written: from it, symbols are read in this order, and then `start` is left.
struct RansStream {
  absl::Span<const RansSymbol> symbols;
  uint32_t start;
};
// The bytes of each stream. Several at a time keep the CPU busier than one after the other.
std::vector<std::string> WriteRans(absl::Span<const RansStream> streams);

// Reads of a stream that is hostile give any symbols, but never go beyond its end.
class RansReader {
 public:
  // 8 bytes behind end must be readable.
  RansReader(const uint8_t* begin, const uint8_t* end) : next_(begin), end_(end) {
    Refill();
    Refill();
  }

  // Of 2^bits; what Take gets must contain it.
  uint32_t Peek(int bits) const { return state_ & ((1u << bits) - 1); }
  void Take(uint32_t start, uint32_t frequency, int bits) {
    state_ = frequency * (state_ >> bits) + Peek(bits) - start;
    Refill();
  }
  uint32_t TakeRaw(int bits) {
    const uint32_t value = Peek(bits);
    state_ >>= bits;
    Refill();
    return value;
  }

  uint32_t state() const { return state_; }
  const uint8_t* next() const { return next_; }
  // The stream ends elsewhere than was said at first.
  void set_end(const uint8_t* end) { end_ = end; }

 private:
  // None to two bytes, more than two a symbol does not take. Without a branch: how many are missing
  // can't be foreseen.
  void Refill() {
    uint64_t missing =
        static_cast<uint64_t>(state_ < kRansLow) + static_cast<uint64_t>(state_ < kRansLow >> 8);
    const auto left = static_cast<uint64_t>(end_ - next_);
    missing = missing < left ? missing : left;
    uint32_t bytes;
    std::memcpy(&bytes, next_, sizeof(bytes));
    const uint64_t wide = uint64_t{state_} << 32 | __builtin_bswap32(bytes);
    state_ = static_cast<uint32_t>(wide << (8 * missing) >> 32);
    next_ += missing;
  }

  uint32_t state_ = 0;
  const uint8_t* next_;
  const uint8_t* end_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_RANS_H_
