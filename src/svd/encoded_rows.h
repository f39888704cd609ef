// The rows of an encoding, each as it would be encoded by itself: what receipts are made of
// (cluster/receipt.h).
#ifndef EFEDLLM_SVD_ENCODED_ROWS_H_
#define EFEDLLM_SVD_ENCODED_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "svd/rans.h"

namespace efedllm {

struct EncodedRows {
  std::string bytes;            // row behind row
  std::vector<uint32_t> sizes;  // of each

  void Clear() {
    bytes.clear();
    sizes.clear();
  }
  void Add(absl::string_view row) {
    bytes.append(row.data(), row.size());
    sizes.push_back(static_cast<uint32_t>(row.size()));
  }
};

// Rows that are one stream each and some bytes behind it, in their order.
class RowStreams {
 public:
  // rows: gets them, by Flush at the latest; borrowed.
  explicit RowStreams(EncodedRows& rows) : rows_(rows) {}

  // The symbols of a row's stream: header, then coefficients. start: of the stream.
  void Add(absl::Span<const RansSymbol> header, absl::Span<const RansSymbol> coefficients,
           uint32_t start, absl::string_view tail);
  void Flush();

 private:
  struct Row {
    std::vector<RansSymbol> symbols;
    uint32_t start = 0;
    std::string tail;
  };

  EncodedRows& rows_;
  std::vector<Row> pending_;  // the first count_; their memory is reused
  size_t count_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_ENCODED_ROWS_H_
