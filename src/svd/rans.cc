#include "svd/rans.h"

#include <algorithm>

namespace efedllm {

void WriteRans(absl::Span<const RansSymbol> symbols, uint32_t start, std::string& out) {
  const size_t begin = out.size();
  uint32_t state = start;
  const auto put = [&] {
    out.push_back(static_cast<char>(state));
    state >>= 8;
  };
  for (size_t i = symbols.size(); i-- > 0;) {
    const RansSymbol symbol = symbols[i];
    // So that the state is below 2^32 afterwards.
    const uint64_t limit = uint64_t{symbol.frequency} << (32 - symbol.bits);
    while (state >= limit) put();
    state = (state / symbol.frequency << symbol.bits) + state % symbol.frequency + symbol.start;
  }
  while (state != 0) put();
  std::reverse(out.begin() + static_cast<std::ptrdiff_t>(begin), out.end());
}

}  // namespace efedllm
