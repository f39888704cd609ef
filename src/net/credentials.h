// Who is who: node keys, the coordinator's CA, certificates, and the gRPC credentials made of them.
// A certificate names a node, not an address: subjectAltName DNS:<16 hex digits>.node.efedllm, and
// DNS:coordinator.efedllm for the coordinator. A dialer asks for that name whatever address it
// dials, so certificates survive DHCP, NAT and VPNs.
#ifndef EFEDLLM_NET_CREDENTIALS_H_
#define EFEDLLM_NET_CREDENTIALS_H_

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/sha256.h"
#include "net/address.h"

namespace efedllm {

// The coordinator's own id; no key hashes to it in practice, and enrolment refuses one that does.
inline constexpr NodeId kCoordinatorNode{0};

// A key and the certificate for it.
struct Identity {
  NodeId node;
  std::string key_pem;
  std::string certificate_pem;
  std::string ca_pem;
  Sha256Digest ca_fingerprint = {};  // as in join tokens
  absl::Time issued;                 // by its issuer's clock
  absl::Time expires;
};

// An Ed25519 key, PEM (PKCS #8).
std::string NewNodeKey();
// PKCS #10, DER, signed by the key. InvalidArgument: not a key.
absl::StatusOr<std::string> CertificateRequest(absl::string_view key_pem);
absl::StatusOr<NodeId> NodeOfKey(absl::string_view key_pem);
// Puts the parts together; checks that the certificate is for this key and by this CA.
absl::StatusOr<Identity> MakeIdentity(absl::string_view key_pem, absl::string_view certificate_der,
                                      absl::string_view ca_pem);

// Immutable after opening; thread-safe.
class CertificateAuthority {
 public:
  // Reads <dir>/ca.key (0600) and <dir>/ca.crt, or makes them at the first start. now: the wall
  // clock, as everywhere here. FailedPrecondition: damaged, or not valid now; says what to do.
  static absl::StatusOr<std::unique_ptr<CertificateAuthority>> OpenOrCreate(const std::string& dir,
                                                                            absl::Time now);

  // SHA-256 of the CA certificate (DER): what a join token pins.
  Sha256Digest fingerprint() const;
  const std::string& certificate_pem() const;

  struct Signed {
    NodeId node;
    std::string certificate_der;
  };
  // Checks the request's own signature and that its key is Ed25519. The names in the request are
  // ignored: the node's name comes from its key. InvalidArgument: malformed.
  absl::StatusOr<Signed> SignNode(absl::string_view certificate_request_der, absl::Time now,
                                  absl::Duration validity) const;
  // The coordinator's own identity, node 0, with a key that lives as long as the process.
  absl::StatusOr<Identity> CoordinatorIdentity(absl::Time now) const;

 private:
  CertificateAuthority() = default;

  std::string key_pem_;
  std::string certificate_pem_;
};

// When a connection counts as broken: an interval without a word is followed by a ping, which is to
// be answered, as data is to be acknowledged, within the timeout. The answer comes behind what the
// link has queued up, so that a connection for bulk needs patience.
struct Keepalive {
  absl::Duration interval = absl::Seconds(10);
  absl::Duration timeout = absl::Seconds(5);
};
inline constexpr Keepalive kHopKeepalive{absl::Seconds(1), absl::Seconds(5)};
inline constexpr Keepalive kControlKeepalive{absl::Seconds(1), absl::Milliseconds(2500)};

// How a daemon talks: mutual TLS with an identity, or nothing at all (--insecure, loopback only).
class Transport {
 public:
  static Transport Tls(const Identity& identity);
  // The node then only claims who it is, in call metadata.
  static Transport Insecure(NodeId self);

  // Accepts calls without a client certificate too (enrolment); handlers ask PeerNode.
  std::shared_ptr<grpc::ServerCredentials> server_credentials() const;
  // A channel to `peer` at address, with keepalive and our message size limits. Never blocks.
  std::shared_ptr<grpc::Channel> Dial(const std::string& address, NodeId peer,
                                      const Keepalive& keepalive = {}) const;
  // Call before each call on a dialed channel.
  void Prepare(grpc::ClientContext& context) const;
  // Who calls. Unauthenticated: no valid client certificate.
  absl::StatusOr<NodeId> PeerNode(const grpc::ServerContextBase& context) const;

  bool insecure() const { return !identity_; }
  NodeId self() const { return self_; }

 private:
  std::shared_ptr<const Identity> identity_;  // null: insecure
  NodeId self_;
};

// What all our gRPC servers have in common: one process per port, keepalive that matches Dial's,
// bounded concurrent calls and threads. Before BuildAndStart.
void ConfigureServer(grpc::ServerBuilder& builder);

}  // namespace efedllm

#endif  // EFEDLLM_NET_CREDENTIALS_H_
