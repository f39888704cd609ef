#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/openssl_ptr.h"
#include "common/status_macros.h"
#include "net/address.h"
#include "net/join_token.h"
#include "net/node_dns_name.h"

namespace efedllm {
namespace {

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

using AddressListPtr = std::unique_ptr<addrinfo, openssl::Deleter<freeaddrinfo>>;
using SslContextPtr = std::unique_ptr<SSL_CTX, openssl::Deleter<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, openssl::Deleter<SSL_free>>;

absl::Status NobodyAnswers(const std::string& address, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("nobody answers at ", address, ": ", why));
}

// Waits for events on fd until the deadline.
absl::Status Await(int fd, short events, absl::Time deadline, const std::string& address) {
  while (true) {
    const int64_t ms = absl::ToInt64Milliseconds(deadline - SteadyNow());
    if (ms <= 0) return NobodyAnswers(address, "it took too long");
    pollfd poller{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&poller, 1, static_cast<int>(std::min<int64_t>(ms, 1000)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return NobodyAnswers(address, std::strerror(errno));
  }
}

absl::StatusOr<Socket> ConnectOne(const addrinfo& to, absl::Time deadline,
                                  const std::string& address) {
  Socket socket(::socket(to.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (socket.fd() < 0) return NobodyAnswers(address, std::strerror(errno));
  if (connect(socket.fd(), to.ai_addr, to.ai_addrlen) == 0) return socket;
  if (errno != EINPROGRESS) return NobodyAnswers(address, std::strerror(errno));
  RETURN_IF_ERROR(Await(socket.fd(), POLLOUT, deadline, address));
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return NobodyAnswers(address, std::strerror(error));
  return socket;
}

absl::StatusOr<Socket> Connect(const std::string& address, absl::Time deadline) {
  ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(address));
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(parsed.host.c_str(), absl::StrCat(parsed.port).c_str(), &hints, &found);
  if (error != 0) return NobodyAnswers(address, gai_strerror(error));
  const AddressListPtr addresses(found);
  absl::Status last = NobodyAnswers(address, "the name has no address");
  for (const addrinfo* to = addresses.get(); to != nullptr; to = to->ai_next) {
    absl::StatusOr<Socket> socket = ConnectOne(*to, deadline, address);
    if (socket.ok()) return socket;
    last = socket.status();
  }
  return last;
}

absl::Status NotTls(const std::string& address, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("the server at ", address, " does not speak our TLS (", why,
                   "): is this the coordinator's port for workers, and not its HTTP port?"));
}

// Sends what the handshake has produced. MSG_NOSIGNAL is why the socket is not OpenSSL's.
absl::Status Flush(BIO* out, int fd, absl::Time deadline, const std::string& address) {
  char* data = nullptr;
  size_t size = static_cast<size_t>(BIO_get_mem_data(out, &data));
  while (size > 0) {
    const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
      RETURN_IF_ERROR(Await(fd, POLLOUT, deadline, address));
      continue;
    }
    if (sent < 0) return NotTls(address, "it closed the connection");
    data += sent;
    size -= static_cast<size_t>(sent);
  }
  (void)BIO_reset(out);
  return absl::OkStatus();
}

absl::Status Receive(BIO* in, int fd, absl::Time deadline, const std::string& address) {
  char buffer[4096];
  while (true) {
    const ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
    if (got > 0) {
      CHECK(BIO_write(in, buffer, static_cast<int>(got)) == got);
      return absl::OkStatus();
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      return NotTls(address, "it closed the connection");
    }
    RETURN_IF_ERROR(Await(fd, POLLIN, deadline, address));
  }
}

absl::Status Handshake(SSL* ssl, int fd, absl::Time deadline, const std::string& address) {
  constexpr size_t kMaxReceives = 64;  // of up to 4 KiB; a handshake needs one or two
  for (size_t i = 0; i < kMaxReceives; ++i) {
    const int done = SSL_do_handshake(ssl);
    const int error = SSL_get_error(ssl, done);
    RETURN_IF_ERROR(Flush(SSL_get_wbio(ssl), fd, deadline, address));
    if (done == 1) return absl::OkStatus();
    if (error != SSL_ERROR_WANT_READ) return NotTls(address, openssl::TakeError());
    RETURN_IF_ERROR(Receive(SSL_get_rbio(ssl), fd, deadline, address));
  }
  return NotTls(address, "an endless handshake");
}

// The shown chain's certificate with this fingerprint, borrowed from ssl; null: none.
X509* FindPinned(SSL* ssl, const Sha256Digest& fingerprint) {
  STACK_OF(X509)* chain = SSL_get_peer_cert_chain(ssl);
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    const std::string der = openssl::ToDer(sk_X509_value(chain, i));
    const auto* bytes = reinterpret_cast<const uint8_t*>(der.data());
    if (Sha256(absl::MakeConstSpan(bytes, der.size())) == fingerprint)
      return sk_X509_value(chain, i);
  }
  return nullptr;
}

// The server's own certificate must be the coordinator's, by this CA alone.
absl::Status VerifyLeaf(SSL* ssl, X509* ca) {
  const openssl::StorePtr store(X509_STORE_new());
  const openssl::StoreContextPtr context(X509_STORE_CTX_new());
  const openssl::CertificatePtr leaf(SSL_get1_peer_certificate(ssl));
  CHECK(store != nullptr && context != nullptr && leaf != nullptr);
  CHECK(X509_STORE_add_cert(store.get(), ca) == 1);
  CHECK(X509_STORE_CTX_init(context.get(), store.get(), leaf.get(), nullptr) == 1);
  X509_STORE_CTX_set_default(context.get(), "ssl_server");
  X509_VERIFY_PARAM_set1_host(X509_STORE_CTX_get0_param(context.get()), kCoordinatorDnsName, 0);
  if (X509_verify_cert(context.get()) == 1) return absl::OkStatus();
  ERR_clear_error();
  const int error = X509_STORE_CTX_get_error(context.get());
  if (error == X509_V_ERR_CERT_NOT_YET_VALID || error == X509_V_ERR_CERT_HAS_EXPIRED) {
    return absl::OutOfRangeError(absl::StrCat(
        "the coordinator's certificate is ",
        error == X509_V_ERR_CERT_NOT_YET_VALID ? "not valid yet" : "not valid any more",
        " by this machine's clock, which says ", FormatWallClock(absl::Now()),
        ": set this clock, or the coordinator's"));
  }
  return absl::PermissionDeniedError(
      absl::StrCat("the server's certificate is not a valid one of this token's coordinator: ",
                   X509_verify_cert_error_string(error)));
}

}  // namespace

absl::StatusOr<std::string> FetchPinnedCa(const std::string& address,
                                          const Sha256Digest& fingerprint, absl::Duration timeout) {
  const absl::Time deadline = SteadyNow() + timeout;
  ASSIGN_OR_RETURN(const Socket socket, Connect(address, deadline));
  const SslContextPtr context(SSL_CTX_new(TLS_client_method()));
  CHECK(context != nullptr);
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);  // VerifyLeaf does it, by the pin
  const SslPtr ssl(SSL_new(context.get()));
  CHECK(ssl != nullptr);
  SSL_set_connect_state(ssl.get());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  SSL_set_tlsext_host_name(ssl.get(), kCoordinatorDnsName);
  static constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  CHECK(SSL_set_alpn_protos(ssl.get(), kHttp2, sizeof(kHttp2)) == 0);
  RETURN_IF_ERROR(Handshake(ssl.get(), socket.fd(), deadline, address));
  X509* ca = FindPinned(ssl.get(), fingerprint);
  if (ca == nullptr) {
    return absl::PermissionDeniedError(
        absl::StrCat("the server at ", address,
                     " has another CA than this token: the token is of another coordinator, or "
                     "somebody is in between"));
  }
  RETURN_IF_ERROR(VerifyLeaf(ssl.get(), ca));
  return openssl::ToPem(ca);
}

}  // namespace efedllm
