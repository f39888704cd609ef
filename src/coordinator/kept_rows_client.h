// Kept rows from workers, over the network.
#ifndef EFEDLLM_COORDINATOR_KEPT_ROWS_CLIENT_H_
#define EFEDLLM_COORDINATOR_KEPT_ROWS_CLIENT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/kept_rows_source.h"
#include "net/credentials.h"

namespace efedllm {

class KeptRowsClient final : public KeptRowsSource {
 public:
  // transport is borrowed and outlives this.
  explicit KeptRowsClient(const Transport& transport) : transport_(transport) {}

  absl::StatusOr<std::vector<CodedRow>> Fetch(NodeId node, const std::string& address,
                                              const KeptRowsRequest& request,
                                              size_t d_model) override;

 private:
  const Transport& transport_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_KEPT_ROWS_CLIENT_H_
