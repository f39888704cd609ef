#include "worker/enrolment.h"

#include <grpcpp/client_context.h>

#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "wire/cluster_wire.h"
#include "wire/status_wire.h"

namespace efedllm {

absl::StatusOr<Identity> Enrol(const std::string& address, const JoinToken& token,
                               const std::string& name, const std::string& owner, NodeState& state,
                               absl::Duration timeout) {
  ASSIGN_OR_RETURN(const std::string ca_pem, FetchPinnedCa(address, token.ca_fingerprint, timeout));
  // No certificate of our own yet: only the coordinator is proven.
  Identity nobody;
  nobody.node = state.node();
  nobody.ca_pem = ca_pem;
  const Transport transport = Transport::Tls(nobody);
  const auto stub = v1::Enrolment::NewStub(transport.Dial(address, kCoordinatorNode));

  v1::EnrolRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_token_secret(token.secret);
  ASSIGN_OR_RETURN(const std::string certificate_request, CertificateRequest(state.key_pem()));
  request.set_certificate_request(certificate_request);
  request.set_name(name);
  request.set_owner(owner);
  v1::EnrolReply reply;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  RETURN_IF_ERROR(FromGrpc(stub->Enrol(&context, request, &reply)));
  return state.SaveIdentity(reply.certificate(), ca_pem);
}

bool RenewalIsDue(const Identity& identity, absl::Time now) {
  return identity.expires - now < (identity.expires - identity.issued) / 3;
}

absl::StatusOr<Identity> Renew(v1::Cluster::StubInterface& stub, const Identity& identity,
                               NodeState& state, absl::Duration timeout) {
  v1::RenewRequest request;
  ASSIGN_OR_RETURN(const std::string certificate_request, CertificateRequest(state.key_pem()));
  request.set_certificate_request(certificate_request);
  v1::EnrolReply reply;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  RETURN_IF_ERROR(FromGrpc(stub.Renew(&context, request, &reply)));
  return state.SaveIdentity(reply.certificate(), identity.ca_pem);
}

}  // namespace efedllm
