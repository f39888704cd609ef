#include "svd/rans.h"

#include <algorithm>
#include <cstddef>

namespace efedllm {
namespace {

// Most bytes that a symbol and a state's end take.
constexpr size_t kSymbolBytes = 2, kEndBytes = 8;

// Writes from the back of its buffer to the front, as what is written last is read first.
class Writer {
 public:
  explicit Writer(const RansStream& stream)
      : symbols_(stream.symbols.data()),
        left_(stream.symbols.size()),
        state_(stream.start),
        buffer_(stream.symbols.size() * kSymbolBytes + kEndBytes, '\0'),
        next_(buffer_.data() + buffer_.size()) {}

  size_t left() const { return left_; }

  void PutOne() {
    const RansSymbol symbol = symbols_[--left_];
    // So that the state is below 2^32 afterwards; by none to two bytes, and without a branch.
    const uint64_t limit = uint64_t{symbol.frequency} << (32 - symbol.bits);
    const uint32_t bytes =
        static_cast<uint32_t>(state_ >= limit) + static_cast<uint32_t>(state_ >= limit << 8);
    next_[-1] = static_cast<char>(state_);
    next_[-2] = static_cast<char>(state_ >> 8);
    next_ -= bytes;
    state_ >>= 8 * bytes;
    state_ = (state_ / symbol.frequency << symbol.bits) + state_ % symbol.frequency + symbol.start;
  }

  std::string Finish() {
    for (; state_ != 0; state_ >>= 8) *--next_ = static_cast<char>(state_);
    return buffer_.substr(static_cast<size_t>(next_ - buffer_.data()));
  }

 private:
  const RansSymbol* symbols_;
  size_t left_;
  uint32_t state_;
  std::string buffer_;
  char* next_;
};

}  // namespace

std::vector<std::string> WriteRans(absl::Span<const RansStream> streams) {
  std::vector<Writer> writers(streams.begin(), streams.end());
  size_t together = writers.empty() ? 0 : writers[0].left();
  for (const Writer& writer : writers) together = std::min(together, writer.left());
  for (; together > 0; --together) {
    for (Writer& writer : writers) writer.PutOne();
  }
  std::vector<std::string> bytes;
  bytes.reserve(streams.size());
  for (Writer& writer : writers) {
    while (writer.left() > 0) writer.PutOne();
    bytes.push_back(writer.Finish());
  }
  return bytes;
}

}  // namespace efedllm
