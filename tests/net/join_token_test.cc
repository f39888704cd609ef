#include "net/join_token.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <thread>

#include "net/credentials.h"
#include "net/net_world.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

JoinToken SomeToken() {
  JoinToken token;
  for (size_t i = 0; i < token.ca_fingerprint.size(); ++i) {
    token.ca_fingerprint[i] = static_cast<uint8_t>(7 * i + 200);
  }
  token.secret = "0123456789abcdef";
  return token;
}

TEST(JoinToken, SurvivesFormatAndParse) {
  const std::string text = FormatJoinToken(SomeToken());
  const auto parsed = ParseJoinToken(text);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->ca_fingerprint, SomeToken().ca_fingerprint);
  EXPECT_EQ(parsed->secret, SomeToken().secret);
  EXPECT_EQ(text.size(), 71u);
}

TEST(JoinToken, MistypedOnesAreRefusedWithoutBeingRepeated) {
  const std::string text = FormatJoinToken(SomeToken());
  std::vector<std::string> wrong = {
      "",          "efl1",     "efl1..",    "efl2" + text.substr(4), text + "=",
      text + ".x", " " + text, text + "\n", std::string(5000, 'a')};
  for (size_t i = 0; i < text.size(); ++i) wrong.push_back(text.substr(0, i));
  std::string unused_bits = text;  // the last character of 22 carries 2 bits
  unused_bits.back() = unused_bits.back() == 'w' ? 'x' : 'w';
  for (const std::string& token : wrong) {
    const auto status = ParseJoinToken(token).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << token;
    if (token.size() > 20) EXPECT_THAT(status.ToString(), Not(HasSubstr(token)));
  }
}

// A gRPC server that answers nothing: only its TLS is used.
class TlsServer {
 public:
  explicit TlsServer(const Identity& identity) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", Transport::Tls(identity).server_credentials(), &port_);
    builder.RegisterCallbackGenericService(&service_);
    server_ = builder.BuildAndStart();
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  grpc::CallbackGenericService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// Accepts one connection, sends `answer`, and keeps it open until destroyed.
class RawServer {
 public:
  explicit RawServer(std::string answer) : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    socklen_t size = sizeof(address);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    listen(listener_, 1);
    thread_ = std::thread([this, answer = std::move(answer)] {
      const int connection = accept(listener_, nullptr, nullptr);
      if (connection < 0) return;
      send(connection, answer.data(), answer.size(), MSG_NOSIGNAL);
      char buffer[4096];
      while (recv(connection, buffer, sizeof(buffer), 0) > 0) {
      }
      close(connection);
    });
  }
  ~RawServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  int listener_;
  uint16_t port_ = 0;
  std::thread thread_;
};

TEST(FetchPinnedCa, GetsTheCaOfTheFingerprint) {
  const TestCa ca;
  const TlsServer server(ca.Coordinator());
  const auto pem = FetchPinnedCa(server.address(), ca.authority().fingerprint(), absl::Seconds(5));
  ASSERT_TRUE(pem.ok()) << pem.status();
  EXPECT_EQ(*pem, ca.authority().certificate_pem());
}

TEST(FetchPinnedCa, AnotherCaIsPermissionDenied) {
  const TestCa ca;
  const TestCa other;
  const TlsServer server(other.Coordinator());
  const auto pem = FetchPinnedCa(server.address(), ca.authority().fingerprint(), absl::Seconds(5));
  EXPECT_TRUE(absl::IsPermissionDenied(pem.status())) << pem.status();
  EXPECT_THAT(pem.status().ToString(), HasSubstr("in between"));
}

TEST(FetchPinnedCa, CaThatIsOnlyAppendedToAForeignCertificateIsPermissionDenied) {
  const TestCa ca;
  const TestCa intruder;
  Identity identity = intruder.Coordinator();
  identity.ca_pem = ca.authority().certificate_pem();  // public: anybody can show it
  const TlsServer server(identity);
  const auto pem = FetchPinnedCa(server.address(), ca.authority().fingerprint(), absl::Seconds(5));
  EXPECT_TRUE(absl::IsPermissionDenied(pem.status())) << pem.status();
}

TEST(FetchPinnedCa, WorkerThatPosesAsTheCoordinatorIsPermissionDenied) {
  const TestCa ca;
  const TlsServer server(ca.Node());
  const auto pem = FetchPinnedCa(server.address(), ca.authority().fingerprint(), absl::Seconds(5));
  EXPECT_TRUE(absl::IsPermissionDenied(pem.status())) << pem.status();
}

TEST(FetchPinnedCa, ClockThatIsTooFarBehindIsNamed) {
  const TestCa ca;
  const absl::Time later = absl::Now() + absl::Hours(24 * 30);
  const TlsServer server(*ca.authority().CoordinatorIdentity(later));
  const auto pem = FetchPinnedCa(server.address(), ca.authority().fingerprint(), absl::Seconds(5));
  EXPECT_TRUE(absl::IsOutOfRange(pem.status())) << pem.status();
  EXPECT_THAT(pem.status().ToString(), HasSubstr("not valid yet by this machine's clock"));
  const TlsServer hours(*ca.authority().CoordinatorIdentity(absl::Now() + absl::Hours(20)));
  EXPECT_TRUE(FetchPinnedCa(hours.address(), ca.authority().fingerprint(), absl::Seconds(5)).ok());
}

TEST(FetchPinnedCa, ServerWithoutTlsIsInvalidArgument) {
  const RawServer server("HTTP/1.1 400 Bad Request\r\n\r\n");
  const auto pem = FetchPinnedCa(server.address(), Sha256Digest{}, absl::Seconds(5));
  EXPECT_TRUE(absl::IsInvalidArgument(pem.status())) << pem.status();
}

TEST(FetchPinnedCa, SilentServerIsUnavailableAfterTheTimeout) {
  const RawServer server("");
  const auto pem = FetchPinnedCa(server.address(), Sha256Digest{}, absl::Milliseconds(200));
  EXPECT_TRUE(absl::IsUnavailable(pem.status())) << pem.status();
}

TEST(FetchPinnedCa, ClosedPortIsUnavailable) {
  std::string address;
  {
    const TestCa ca;
    address = TlsServer(ca.Coordinator()).address();
  }
  const auto pem = FetchPinnedCa(address, Sha256Digest{}, absl::Seconds(5));
  EXPECT_TRUE(absl::IsUnavailable(pem.status())) << pem.status();
  EXPECT_TRUE(absl::IsInvalidArgument(
      FetchPinnedCa("nonsense", Sha256Digest{}, absl::Seconds(5)).status()));
}

}  // namespace
}  // namespace efedllm
