#include "coordinator/kept_rows_client.h"

#include <iterator>
#include <utility>

#include "absl/time/clock.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "net/audit_call.h"
#include "svd/codec.h"

namespace efedllm {
namespace {

constexpr absl::Duration kAnswerTimeout = absl::Seconds(15);
constexpr absl::Duration kTimeout = absl::Minutes(2);

// Whatever a node says instead of an answer, it hasn't got the rows; or it can't be asked now.
absl::Status WhyNot(const absl::Status& status) {
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) return status;
  // Damaged on its way, there or back.
  if (absl::IsDataLoss(status)) return absl::UnavailableError(status.message());
  return absl::NotFoundError(status.message());
}

}  // namespace

absl::StatusOr<std::vector<CodedRow>> KeptRowsClient::Fetch(NodeId node, const std::string& address,
                                                            const KeptRowsRequest& request,
                                                            size_t d_model) {
  AuditCaller node_rows(transport_, address, node, AuditMethod::kRows);
  const absl::Time until = SteadyNow() + kTimeout;
  std::vector<CodedRow> rows;
  KeptRowsRequest rest = request;
  while (rest.tokens > 0) {
    if (SteadyNow() > until) return absl::DeadlineExceededError("the rows take too long to come");
    const absl::StatusOr<grpc::ByteBuffer> answer =
        node_rows.Ask(KeptRowsRequestToWire(rest), kAnswerTimeout);
    if (!answer.ok()) return WhyNot(answer.status());
    absl::StatusOr<std::vector<CodedRow>> more =
        KeptRowsFromWire(*answer, rest.tokens, MaxEncodedBytes(1, d_model));
    if (!more.ok()) return WhyNot(more.status());
    rest.first_position += static_cast<uint32_t>(more->size());
    rest.tokens -= static_cast<uint32_t>(more->size());
    std::move(more->begin(), more->end(), std::back_inserter(rows));
  }
  return rows;
}

}  // namespace efedllm
