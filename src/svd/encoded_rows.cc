#include "svd/encoded_rows.h"

#include <array>

namespace efedllm {
namespace {

constexpr size_t kRowsTogether = 8;  // several are written faster than one after the other

}  // namespace

void RowStreams::Add(absl::Span<const RansSymbol> header, absl::Span<const RansSymbol> coefficients,
                     uint32_t start, absl::string_view tail) {
  if (count_ == kRowsTogether) Flush();
  if (count_ == pending_.size()) pending_.emplace_back();
  Row& row = pending_[count_++];
  row.symbols.assign(header.begin(), header.end());
  row.symbols.insert(row.symbols.end(), coefficients.begin(), coefficients.end());
  row.start = start;
  row.tail.assign(tail.data(), tail.size());
}

void RowStreams::Flush() {
  std::array<RansStream, kRowsTogether> streams;
  for (size_t i = 0; i < count_; ++i) streams[i] = {pending_[i].symbols, pending_[i].start};
  const std::vector<std::string> written = WriteRans({streams.data(), count_});
  for (size_t i = 0; i < count_; ++i) {
    rows_.bytes += written[i];
    rows_.bytes += pending_[i].tail;
    rows_.sizes.push_back(static_cast<uint32_t>(written[i].size() + pending_[i].tail.size()));
  }
  count_ = 0;
}

}  // namespace efedllm
