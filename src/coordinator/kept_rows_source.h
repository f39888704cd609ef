// Where audits get the rows from that a node kept.
#ifndef EFEDLLM_COORDINATOR_KEPT_ROWS_SOURCE_H_
#define EFEDLLM_COORDINATOR_KEPT_ROWS_SOURCE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/receipt.h"
#include "common/ids.h"
#include "wire/receipt_wire.h"

namespace efedllm {

// Thread-safe. Blocks for as long as the transfer takes, bounded.
class KeptRowsSource {
 public:
  virtual ~KeptRowsSource() = default;
  // Exactly request.tokens rows, none larger than a row of d_model values can be; nothing else of
  // them is checked. NotFound: the node does not have all of them, or no such version; Unavailable,
  // DeadlineExceeded: it can't be reached.
  virtual absl::StatusOr<std::vector<CodedRow>> Fetch(NodeId node, const std::string& address,
                                                      const KeptRowsRequest& request,
                                                      size_t d_model) = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_KEPT_ROWS_SOURCE_H_
