#include "net/link_probe.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/bounded_queue.h"
#include "net/hop.h"
#include "net/link_prober.h"
#include "net/net_world.h"

namespace efedllm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(20);
constexpr NodeId kNobody{77};

// A node that serves hops and nothing else.
class Node {
 public:
  explicit Node(Transport transport)
      : transport_(std::move(transport)), receiver_(transport_, kMaxFrameBytes) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    receiver_.Register(builder);
    server_ = builder.BuildAndStart();
  }
  ~Node() {
    receiver_.Shutdown();
    server_->Shutdown();
  }
  NodeId id() const { return transport_.self(); }
  const Transport& transport() const { return transport_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  absl::StatusOr<LinkMeasurement> Measure(const Node& other) const {
    return LinkProbe(transport_, other.address(), other.id()).Measure();
  }
  // What an echo of so many bytes comes to; deadline: from now.
  grpc::Status Echo(const Node& other, size_t bytes, absl::Duration deadline) const {
    grpc::ClientContext context;
    transport_.Prepare(context);
    context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
    const grpc::Slice slice(std::string(bytes, 'x'));
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer answer;
    grpc::Status end;
    absl::Notification done;
    grpc::GenericStub stub(transport_.Dial(other.address(), other.id()));
    stub.UnaryCall(&context, "/efedllm.v1.Stage/Echo", {}, &request, &answer,
                   [&](const grpc::Status& status) {
                     end = status;
                     done.Notify();
                   });
    done.WaitForNotification();
    if (end.ok()) EXPECT_EQ(answer.Length(), 0u);
    return end;
  }

 private:
  static constexpr size_t kMaxFrameBytes = 64 << 10;  // of a small model: less than an echo
  const Transport transport_;
  int port_ = 0;
  HopReceiver receiver_;
  std::unique_ptr<grpc::Server> server_;
};

class LinkProbeTest : public ::testing::Test {
 protected:
  Node NewNode() { return Node(Transport::Tls(ca_.Node())); }
  TestCa ca_;
};

TEST_F(LinkProbeTest, MeasuresANodeOfTheSameCluster) {
  const Node a = NewNode(), b = NewNode();
  const absl::StatusOr<LinkMeasurement> link = a.Measure(b);
  ASSERT_TRUE(link.ok()) << link.status();
  EXPECT_GT(link->rtt, absl::ZeroDuration());
  EXPECT_LT(link->rtt, kLong);
  EXPECT_GT(link->bytes_per_second, 0);
}

TEST_F(LinkProbeTest, MeasuresWithoutTls) {
  const Node a(Transport::Insecure(NodeId{1})), b(Transport::Insecure(NodeId{2}));
  EXPECT_TRUE(a.Measure(b).ok());
}

TEST_F(LinkProbeTest, ANodeOfAnotherClusterIsNotReachable) {
  const TestCa other;
  const Node a = NewNode(), stranger(Transport::Tls(other.Node()));
  EXPECT_TRUE(absl::IsUnavailable(a.Measure(stranger).status()));
  EXPECT_TRUE(absl::IsUnavailable(stranger.Measure(a).status()));
}

TEST_F(LinkProbeTest, AnotherNodeAtTheAddressIsNotTheOneMeant) {
  const Node a = NewNode(), b = NewNode(), c = NewNode();
  EXPECT_TRUE(
      absl::IsUnavailable(LinkProbe(a.transport(), b.address(), c.id()).Measure().status()));
}

TEST_F(LinkProbeTest, NobodyAtTheAddressSaysSo) {
  const Node a = NewNode();
  EXPECT_TRUE(
      absl::IsUnavailable(LinkProbe(a.transport(), "127.0.0.1:1", kNobody).Measure().status()));
}

TEST_F(LinkProbeTest, AnAddressThatSwallowsEverythingTimesOut) {
  const Node a = NewNode();
  // The kernel takes the connection; nobody ever answers on it.
  const int mute = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(mute, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(mute, 4), 0);
  ASSERT_EQ(getsockname(mute, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string name = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  LinkProbe probe(a.transport(), name, kNobody);
  const absl::Status status = probe.Measure().status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status)) << status;
  close(mute);
}

TEST_F(LinkProbeTest, CancelEndsIt) {
  const Node a = NewNode(), b = NewNode();
  LinkProbe probe(a.transport(), b.address(), b.id());
  probe.Cancel();
  EXPECT_TRUE(absl::IsCancelled(probe.Measure().status()));
}

TEST_F(LinkProbeTest, AnEchoIsBoundedInSizeAndTime) {
  const Node a = NewNode(), b = NewNode();
  const absl::Duration soon = absl::Seconds(4);
  EXPECT_TRUE(a.Echo(b, 0, soon).ok());
  EXPECT_TRUE(a.Echo(b, 1 << 20, soon).ok());
  EXPECT_FALSE(a.Echo(b, (1 << 20) + 1, soon).ok());
  EXPECT_EQ(a.Echo(b, 0, absl::Minutes(10)).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(LinkProbeTest, ManyEchoesAtATimeAreRefusedOrAnsweredAndLeaveNothingBehind) {
  const Node a = NewNode(), b = NewNode();
  std::vector<std::thread> threads;
  std::atomic<int> answered = 0;
  for (int i = 0; i < 32; ++i) {
    threads.emplace_back([&] { answered += a.Echo(b, 1 << 20, absl::Seconds(6)).ok(); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(answered, 0);
  EXPECT_TRUE(a.Echo(b, 1, absl::Seconds(6)).ok());
}

TEST_F(LinkProbeTest, AProberMeasuresOneAfterTheOther) {
  const Node a = NewNode(), b = NewNode(), c = NewNode();
  BoundedQueue<std::pair<NodeId, bool>> results(16);
  LinkProber prober(a.transport(), {}, [&](NodeId node, const auto& link) {
    EXPECT_TRUE(results.TryPush({node, link.ok()}));
  });
  prober.Measure({{b.id(), b.address()}, {kNobody, "127.0.0.1:1"}, {c.id(), c.address()}});
  std::vector<std::pair<NodeId, bool>> got;
  for (int i = 0; i < 3; ++i) got.push_back(results.Pop(kLong).value());
  EXPECT_THAT(got, ElementsAre(std::pair(b.id(), true), std::pair(kNobody, false),
                               std::pair(c.id(), true)));
}

TEST_F(LinkProbeTest, AProberWaitsForAPauseButNotForEver) {
  const Node a = NewNode(), b = NewNode();
  std::atomic<bool> busy = true;
  absl::Notification measured, measured_again;
  LinkProber prober(a.transport(), {.busy = [&] { return busy.load(); }, .patience = kLong},
                    [&](NodeId, const auto&) {
                      EXPECT_FALSE(busy.load());
                      measured.Notify();
                    });
  prober.Measure({{b.id(), b.address()}});
  EXPECT_FALSE(measured.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  busy = false;
  EXPECT_TRUE(measured.WaitForNotificationWithTimeout(kLong));

  LinkProber impatient(a.transport(),
                       {.busy = [] { return true; }, .patience = absl::Milliseconds(1)},
                       [&](NodeId, const auto&) { measured_again.Notify(); });
  impatient.Measure({{b.id(), b.address()}});
  EXPECT_TRUE(measured_again.WaitForNotificationWithTimeout(kLong));
}

TEST_F(LinkProbeTest, AProberStopsWhateverWaits) {
  const Node a = NewNode(), b = NewNode();
  LinkProber prober(a.transport(), {.busy = [] { return true; }, .patience = absl::Hours(1)},
                    [](NodeId, const auto&) { ADD_FAILURE() << "measured"; });
  prober.Measure({{b.id(), b.address()}});
}

}  // namespace
}  // namespace efedllm
