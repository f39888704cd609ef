// How a node gets its certificate: with a join token the first time, with the old one later.
#ifndef EFEDLLM_WORKER_ENROLMENT_H_
#define EFEDLLM_WORKER_ENROLMENT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "net/credentials.h"
#include "net/join_token.h"
#include "wire/cluster_service.h"
#include "worker/node_state.h"

namespace efedllm {

// Verifies that the server at address is the token's coordinator, has the node's key certified, and
// saves the result. owner: whom the node works for, where the token does not say. Unavailable,
// DeadlineExceeded: try again later; others: refused, and why.
absl::StatusOr<Identity> Enrol(const std::string& address, const JoinToken& token,
                               const std::string& name, const std::string& owner, NodeState& state,
                               absl::Duration timeout);

// True when less than a third of the certificate's life is left.
bool RenewalIsDue(const Identity& identity, absl::Time now);

// A new certificate for the same key and CA, saved.
absl::StatusOr<Identity> Renew(v1::Cluster::StubInterface& stub, const Identity& identity,
                               NodeState& state, absl::Duration timeout);

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_ENROLMENT_H_
