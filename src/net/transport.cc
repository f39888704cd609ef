#include <grpc/grpc_security_constants.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/auth_context.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "net/credentials.h"
#include "net/node_dns_name.h"

namespace efedllm {
namespace {

constexpr char kClaimedNodeKey[] = "efedllm-node";  // metadata, insecure transport only
// Clients choose what they ask for; this bounds what a peer may answer.
constexpr int kMaxReplyBytes = 64 << 20;
constexpr int kMaxCallsPerConnection = 256;
constexpr int kMaxThreads = 512;  // of synchronous handlers

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

absl::StatusOr<NodeId> NodeOfSan(const grpc::AuthContext& auth) {
  if (!auth.IsPeerAuthenticated()) {
    return absl::UnauthenticatedError("no client certificate: enrol with a join token first");
  }
  for (const grpc::string_ref& name : auth.FindPropertyValues(GRPC_X509_SAN_PROPERTY_NAME)) {
    if (auto node = ParseNodeDnsName(absl::string_view(name.data(), name.size()))) return *node;
  }
  return absl::UnauthenticatedError("the client certificate names no node");
}

}  // namespace

Transport Transport::Tls(const Identity& identity) {
  Transport transport;
  transport.identity_ = std::make_shared<const Identity>(identity);
  transport.self_ = identity.node;
  return transport;
}

Transport Transport::Insecure(NodeId self) {
  Transport transport;
  transport.self_ = self;
  return transport;
}

std::shared_ptr<grpc::ServerCredentials> Transport::server_credentials() const {
  if (insecure()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = identity_->ca_pem;
  // The CA's certificate is part of the chain: a joining node finds it there by its fingerprint.
  options.pem_key_cert_pairs.push_back(
      {identity_->key_pem, absl::StrCat(identity_->certificate_pem, identity_->ca_pem)});
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::Channel> Transport::Dial(const std::string& address, NodeId peer,
                                               const Keepalive& keepalive) const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(keepalive.interval));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(keepalive.timeout));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // an idle stream stays watched
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // one connection per edge
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetMaxReceiveMessageSize(kMaxReplyBytes);
  arguments.SetMaxSendMessageSize(-1);
  if (insecure()) {
    return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }
  arguments.SetSslTargetNameOverride(NodeDnsName(peer));
  const grpc::SslCredentialsOptions options{.pem_root_certs = identity_->ca_pem,
                                            .pem_private_key = identity_->key_pem,
                                            .pem_cert_chain = identity_->certificate_pem};
  return grpc::CreateCustomChannel(address, grpc::SslCredentials(options), arguments);
}

void Transport::Prepare(grpc::ClientContext& context) const {
  if (insecure()) context.AddMetadata(kClaimedNodeKey, NodeName(self_));
}

absl::StatusOr<NodeId> Transport::PeerNode(const grpc::ServerContextBase& context) const {
  if (!insecure()) {
    const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
    CHECK(auth != nullptr);
    return NodeOfSan(*auth);
  }
  const auto claim = context.client_metadata().find(kClaimedNodeKey);
  if (claim != context.client_metadata().end()) {
    const absl::string_view name(claim->second.data(), claim->second.size());
    if (auto node = ParseNodeName(name)) return *node;
  }
  return absl::UnauthenticatedError(
      absl::StrCat("the call's metadata names no node in \"", kClaimedNodeKey, "\""));
}

void ConfigureServer(grpc::ServerBuilder& builder) {
  // Otherwise two daemons could share a port, and each would get half of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  const Keepalive keepalive;
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(keepalive.interval));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(keepalive.timeout));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             Milliseconds(kHopKeepalive.interval / 2));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxCallsPerConnection);
  builder.SetResourceQuota(grpc::ResourceQuota("efedllm").SetMaxThreads(kMaxThreads));
}

}  // namespace efedllm
