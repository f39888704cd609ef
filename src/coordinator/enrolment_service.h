// A join token and a key in, a certificate out.
#ifndef EFEDLLM_COORDINATOR_ENROLMENT_SERVICE_H_
#define EFEDLLM_COORDINATOR_ENROLMENT_SERVICE_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/join_tokens.h"
#include "net/credentials.h"
#include "store/database.h"
#include "wire/cluster_service.h"

namespace efedllm {

// How long a node's certificate lives; it renews it well before.
inline constexpr absl::Duration kNodeCertificateLife = absl::Hours(30 * 24);

// Thread-safe. Everything is borrowed.
class Enroller {
 public:
  Enroller(const CertificateAuthority& ca, JoinTokens& tokens, Database& database,
           const Clock& clock)
      : ca_(ca), tokens_(tokens), database_(database), clock_(clock) {}

  // A certificate (DER) for the request's key; counts a use of the token. All from a peer.
  // FailedPrecondition: another protocol version; Unauthenticated: the token; InvalidArgument: the
  // rest.
  absl::StatusOr<std::string> Enrol(const v1::EnrolRequest& request);
  // For the caller's own key only: PermissionDenied else.
  absl::StatusOr<std::string> Renew(NodeId caller, absl::string_view certificate_request);

  // Whom an attached node works for: as its enrolment says; of one that needed none (--insecure),
  // its own word.
  std::string OwnerOf(NodeId node, const std::string& wish);

 private:
  absl::StatusOr<CertificateAuthority::Signed> Sign(absl::string_view certificate_request);
  absl::StatusOr<std::string> OwnerFor(NodeId node, const JoinTokenInfo& token,
                                       const std::string& wish);
  absl::StatusOr<std::optional<std::string>> RecordedOwner(NodeId node);

  const CertificateAuthority& ca_;
  JoinTokens& tokens_;
  Database& database_;
  const Clock& clock_;
};

class EnrolmentService final : public v1::Enrolment::CallbackService {
 public:
  explicit EnrolmentService(Enroller& enroller) : enroller_(enroller) {}

  grpc::ServerUnaryReactor* Enrol(grpc::CallbackServerContext* context,
                                  const v1::EnrolRequest* request, v1::EnrolReply* reply) override;

 private:
  Enroller& enroller_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_ENROLMENT_SERVICE_H_
