#include "coordinator/enrolment_service.h"

#include <spdlog/spdlog.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "coordinator/state_database.h"
#include "wire/cluster_wire.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxSecretBytes = 64;
constexpr size_t kMaxRequestBytes = 16 << 10;

}  // namespace

absl::StatusOr<CertificateAuthority::Signed> Enroller::Sign(absl::string_view request) {
  if (request.size() > kMaxRequestBytes) {
    return absl::InvalidArgumentError("the certificate request is too large");
  }
  ASSIGN_OR_RETURN(CertificateAuthority::Signed certificate,
                   ca_.SignNode(request, clock_.WallNow(), kNodeCertificateLife));
  if (certificate.node == kCoordinatorNode) {
    return absl::InvalidArgumentError("this key's id is the coordinator's; make another key");
  }
  return certificate;
}

// The operator's word, in the token, stands above all; a node's own wish counts once, while it has
// no owner.
absl::StatusOr<std::string> Enroller::OwnerFor(NodeId node, const JoinTokenInfo& token,
                                               const std::string& wish) {
  if (!token.owner.empty()) return token.owner;
  ASSIGN_OR_RETURN(const std::optional<std::string> present, RecordedOwner(node));
  return present && *present != kNoOwner ? std::string() : wish;
}

absl::StatusOr<std::optional<std::string>> Enroller::RecordedOwner(NodeId node) {
  ASSIGN_OR_RETURN(const std::vector<EnrolledNode> nodes, ListEnrolledNodes(database_));
  for (const EnrolledNode& one : nodes) {
    if (one.node == node) return one.owner;
  }
  return std::nullopt;
}

std::string Enroller::OwnerOf(NodeId node, const std::string& wish) {
  const absl::StatusOr<std::optional<std::string>> recorded = RecordedOwner(node);
  if (recorded.ok() && *recorded) return **recorded;
  return wish.empty() ? kNoOwner : wish;
}

absl::StatusOr<std::string> Enroller::Enrol(const v1::EnrolRequest& request) {
  if (request.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the worker speaks protocol version ", request.protocol_version(),
                     " and the coordinator version ", kProtocolVersion, ": update eFedLLM on the ",
                     request.protocol_version() < kProtocolVersion ? "worker" : "coordinator"));
  }
  if (request.token_secret().size() > kMaxSecretBytes) {
    return absl::InvalidArgumentError("the token's secret is too long");
  }
  // First the key, so that a malformed request uses up nothing.
  ASSIGN_OR_RETURN(const CertificateAuthority::Signed certificate,
                   Sign(request.certificate_request()));
  const std::string name = Printable(request.name(), kMaxNameBytes);
  const absl::StatusOr<JoinTokenInfo> token = tokens_.Redeem(request.token_secret());
  if (!token.ok()) {
    spdlog::warn("refused to enrol {} ({}): {}", name, NodeName(certificate.node),
                 std::string(token.status().message()));
    return token.status();
  }
  ASSIGN_OR_RETURN(const std::string owner,
                   OwnerFor(certificate.node, *token, Printable(request.owner(), kMaxNameBytes)));
  const absl::Time now = clock_.WallNow();
  RETURN_IF_ERROR(
      RecordEnrolment(database_, {certificate.node, name, now, now + kNodeCertificateLife, owner}));
  spdlog::info("enrolled {} ({}){}", name, NodeName(certificate.node),
               owner.empty() ? "" : absl::StrCat(", owner ", owner));
  return certificate.certificate_der;
}

absl::StatusOr<std::string> Enroller::Renew(NodeId caller, absl::string_view request) {
  ASSIGN_OR_RETURN(const CertificateAuthority::Signed certificate, Sign(request));
  if (certificate.node != caller) {
    return absl::PermissionDeniedError("a node renews the certificate of its own key only");
  }
  const absl::Time now = clock_.WallNow();
  RETURN_IF_ERROR(
      RecordEnrolment(database_, {certificate.node, "", now, now + kNodeCertificateLife, ""}));
  spdlog::info("renewed the certificate of {}", NodeName(caller));
  return certificate.certificate_der;
}

grpc::ServerUnaryReactor* EnrolmentService::Enrol(grpc::CallbackServerContext* context,
                                                  const v1::EnrolRequest* request,
                                                  v1::EnrolReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<std::string> certificate = enroller_.Enrol(*request);
  if (certificate.ok()) reply->set_certificate(*certificate);
  reactor->Finish(ToGrpc(certificate.status()));
  return reactor;
}

}  // namespace efedllm
