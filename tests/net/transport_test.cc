#include <gmock/gmock.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>

#include "net/credentials.h"
#include "net/net_world.h"

namespace efedllm {
namespace {

// Answers every unary call with the caller's NodeName, or with PeerNode's error.
class WhoAmI final : public grpc::CallbackGenericService {
 public:
  explicit WhoAmI(const Transport& transport) : transport_(transport) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport.server_credentials(), &port_);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
  }
  ~WhoAmI() override { server_->Shutdown(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  class Reactor final : public grpc::ServerGenericBidiReactor {
   public:
    explicit Reactor(const absl::StatusOr<NodeId>& peer) {
      if (peer.ok()) {
        const grpc::Slice slice(NodeName(*peer));
        answer_ = grpc::ByteBuffer(&slice, 1);
        StartWriteAndFinish(&answer_, grpc::WriteOptions(), grpc::Status::OK);
      } else {
        Finish({static_cast<grpc::StatusCode>(peer.status().code()),
                std::string(peer.status().message())});
      }
    }
    void OnDone() override { delete this; }

   private:
    grpc::ByteBuffer answer_;
  };

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    return new Reactor(transport_.PeerNode(*context));
  }

  const Transport& transport_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// What WhoAmI at address answers to a client with this transport.
std::string Ask(const Transport& transport, const std::string& address, NodeId server) {
  auto channel = transport.Dial(address, server);
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  transport.Prepare(context);
  grpc::CompletionQueue queue;
  grpc::ByteBuffer request, reply;
  grpc::Status status;
  auto call = stub.PrepareUnaryCall(&context, "/any", request, &queue);
  call->StartCall();
  call->Finish(&reply, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  grpc::Slice slice;
  if (!status.ok()) return "error: " + status.error_message();
  if (!reply.DumpToSingleSlice(&slice).ok()) return "no bytes";
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

TEST(Transport, ServerAndClientKnowEachOtherByCertificate) {
  const TestCa ca;
  const Transport coordinator = Transport::Tls(ca.Coordinator());
  const Transport worker = Transport::Tls(ca.Node());
  const Transport other = Transport::Tls(ca.Node());
  const WhoAmI at_coordinator(coordinator);
  const WhoAmI at_worker(worker);
  EXPECT_EQ(Ask(worker, at_coordinator.address(), kCoordinatorNode), NodeName(worker.self()));
  EXPECT_EQ(Ask(coordinator, at_worker.address(), worker.self()), NodeName(kCoordinatorNode));
  EXPECT_EQ(Ask(other, at_worker.address(), worker.self()), NodeName(other.self()));
}

TEST(Transport, DialerRefusesAnotherNodeThanItAskedFor) {
  const TestCa ca;
  const Transport worker = Transport::Tls(ca.Node());
  const Transport other = Transport::Tls(ca.Node());
  const WhoAmI server(worker);
  EXPECT_THAT(Ask(other, server.address(), kCoordinatorNode), ::testing::StartsWith("error: "));
  EXPECT_THAT(Ask(other, server.address(), other.self()), ::testing::StartsWith("error: "));
}

TEST(Transport, CertificateOfAnotherCaIsRefusedByBothSides) {
  const TestCa ca;
  const TestCa foreign;
  const Transport coordinator = Transport::Tls(ca.Coordinator());
  const WhoAmI server(coordinator);
  EXPECT_THAT(Ask(Transport::Tls(foreign.Node()), server.address(), kCoordinatorNode),
              ::testing::StartsWith("error: "));
  // Even when the client trusts this server, the server does not trust it.
  Identity intruder = foreign.Node();
  intruder.ca_pem = ca.authority().certificate_pem();
  EXPECT_THAT(Ask(Transport::Tls(intruder), server.address(), kCoordinatorNode),
              ::testing::StartsWith("error: "));
}

TEST(Transport, ExpiredCertificateIsRefused) {
  const TestCa ca;
  const Transport coordinator = Transport::Tls(ca.Coordinator());
  const WhoAmI server(coordinator);
  const Identity expired = ca.Node(absl::Now() - absl::Hours(48), absl::Hours(1));
  EXPECT_THAT(Ask(Transport::Tls(expired), server.address(), kCoordinatorNode),
              ::testing::StartsWith("error: "));
}

TEST(Transport, CallerWithoutCertificateIsHeardButHasNoName) {
  const TestCa ca;
  const Transport coordinator = Transport::Tls(ca.Coordinator());
  const WhoAmI server(coordinator);
  Identity nobody = ca.Node();
  nobody.key_pem.clear();
  nobody.certificate_pem.clear();
  EXPECT_THAT(Ask(Transport::Tls(nobody), server.address(), kCoordinatorNode),
              ::testing::HasSubstr("no client certificate"));
}

TEST(Transport, InsecureNodesAreWhoTheyClaimToBe) {
  const Transport server_transport = Transport::Insecure(kCoordinatorNode);
  const WhoAmI server(server_transport);
  EXPECT_EQ(Ask(Transport::Insecure(NodeId{77}), server.address(), kCoordinatorNode),
            NodeName(NodeId{77}));
  const TestCa ca;  // a TLS client does not talk to it
  EXPECT_THAT(Ask(Transport::Tls(ca.Node()), server.address(), kCoordinatorNode),
              ::testing::StartsWith("error: "));
}

}  // namespace
}  // namespace efedllm
