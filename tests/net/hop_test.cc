#include "net/hop.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>

#include <atomic>
#include <thread>

#include "net/net_world.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

constexpr size_t kMaxFrameBytes = 8u << 20;
constexpr absl::Duration kLong = absl::Seconds(20);
constexpr absl::Duration kShort = absl::Milliseconds(100);

grpc::ByteBuffer Frame(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Text(const grpc::ByteBuffer& bytes) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(bytes.Dump(&slices).ok());
  std::string text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

// Frames come from many allocations: as step_wire sends a header and its activations.
grpc::ByteBuffer FrameOfSlices(const std::vector<std::string>& parts) {
  std::vector<grpc::Slice> slices(parts.begin(), parts.end());
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// A node with a server that serves hops only.
class Node {
 public:
  explicit Node(const Identity& identity) : Node(Transport::Tls(identity)) {}
  explicit Node(Transport transport)
      : transport_(std::move(transport)), receiver_(transport_, kMaxFrameBytes) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    receiver_.Register(builder);
    server_ = builder.BuildAndStart();
  }
  ~Node() { Stop(); }

  void Stop() {
    receiver_.Shutdown();
    server_->Shutdown();
  }
  NodeId id() const { return transport_.self(); }
  const Transport& transport() const { return transport_; }
  HopReceiver& receiver() { return receiver_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  std::unique_ptr<HopSender> DialTo(const Node& other) const {
    return HopSender::Open(transport_, other.address(), other.id());
  }
  // "" for none.
  std::string NextText(absl::Duration timeout = kLong) {
    const auto frame = receiver_.Next(timeout);
    return frame ? Text(frame->bytes) : "";
  }

 private:
  const Transport transport_;
  int port_ = 0;
  HopReceiver receiver_;
  std::unique_ptr<grpc::Server> server_;
};

// The status of a stream that broke, after at most kLong of trying.
absl::Status SendUntilBroken(HopSender& sender, Node& receiver) {
  const absl::Time deadline = absl::Now() + kLong;
  while (absl::Now() < deadline) {
    const absl::Status status = sender.Send(Frame("x"), kLong);
    if (!status.ok()) return status;
    receiver.receiver().Next(absl::Milliseconds(10));
  }
  return absl::OkStatus();
}

class HopTest : public ::testing::Test {
 protected:
  TestCa ca_;
  Node from_{ca_.Node()};
  Node to_{ca_.Node()};
};

TEST_F(HopTest, FramesArriveInOrderWithTheirSender) {
  to_.receiver().SetUpstream(from_.id());
  const auto sender = from_.DialTo(to_);
  std::thread sending([&] {
    for (int i = 0; i < 500; ++i) EXPECT_TRUE(sender->Send(Frame(std::to_string(i)), kLong).ok());
  });
  for (int i = 0; i < 500; ++i) {
    const auto frame = to_.receiver().Next(kLong);
    ASSERT_TRUE(frame.has_value()) << i;
    EXPECT_EQ(frame->peer, from_.id());
    EXPECT_EQ(Text(frame->bytes), std::to_string(i));
  }
  sending.join();
}

TEST_F(HopTest, PrefillFrameOfFourMegabytesArrivesWhole) {
  to_.receiver().SetUpstream(from_.id());
  const auto sender = from_.DialTo(to_);
  std::string hidden(512 * 2048 * 4, '\0');
  for (size_t i = 0; i < hidden.size(); ++i) hidden[i] = static_cast<char>(i * 2654435761u >> 24);
  for (int i = 0; i < 3; ++i) {
    std::thread sending([&] {
      EXPECT_TRUE(sender->Send(FrameOfSlices({"header", hidden}), kLong).ok());
    });
    EXPECT_EQ(to_.NextText(), "header" + hidden);
    sending.join();
  }
}

TEST_F(HopTest, FrameProgressesWhileNobodyIsInSend) {
  to_.receiver().SetUpstream(from_.id());
  const auto sender = from_.DialTo(to_);
  const std::string large(7u << 20, 'x');  // more than the stream's window
  ASSERT_TRUE(sender->Send(Frame(large), kLong).ok());
  EXPECT_EQ(to_.NextText(), large);
}

TEST_F(HopTest, ReceiverThatDoesNotReadHoldsTheSenderBack) {
  to_.receiver().SetUpstream(from_.id());
  const auto sender = from_.DialTo(to_);
  ASSERT_TRUE(sender->Send(Frame("first"), kLong).ok());
  EXPECT_EQ(to_.NextText(), "first");
  const std::string megabyte(1u << 20, 'x');
  absl::Status status;
  int sent = 0;
  while (sent < 64 && (status = sender->Send(Frame(megabyte), kShort)).ok()) ++sent;
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status << " after " << sent;
  // What was taken arrives, and the stream goes on.
  for (int i = 0; i < sent; ++i) EXPECT_EQ(to_.NextText().size(), megabyte.size()) << i;
  ASSERT_TRUE(sender->Send(Frame("last"), kLong).ok());
  EXPECT_EQ(to_.NextText(), "last");
}

TEST_F(HopTest, FrameOverTheLimitEndsTheStreamWithAReason) {
  to_.receiver().SetUpstream(from_.id());
  const auto sender = from_.DialTo(to_);
  ASSERT_TRUE(sender->Send(Frame(std::string(kMaxFrameBytes + 1, 'x')), kLong).ok());
  const absl::Status status = SendUntilBroken(*sender, to_);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(status.ToString(), HasSubstr("larger than max"));
}

TEST_F(HopTest, NobodyListeningIsUnavailable) {
  const std::string address = to_.address();
  to_.Stop();
  const auto sender = HopSender::Open(from_.transport(), address, to_.id());
  absl::Status status;
  while (status.ok()) status = sender->Send(Frame("x"), kLong);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_TRUE(absl::IsUnavailable(sender->Send(Frame("x"), kLong)));  // and stays so
}

TEST_F(HopTest, StreamWaitsForTheReceiversPlan) {
  const auto sender = from_.DialTo(to_);
  ASSERT_TRUE(sender->Send(Frame("early"), kLong).ok());
  EXPECT_EQ(to_.NextText(kShort), "");
  to_.receiver().SetUpstream(from_.id());
  EXPECT_EQ(to_.NextText(), "early");
}

TEST_F(HopTest, StreamsOfOthersEndWhenTheUpstreamChanges) {
  to_.receiver().SetUpstream(from_.id());
  const auto sender = from_.DialTo(to_);
  ASSERT_TRUE(sender->Send(Frame("x"), kLong).ok());
  EXPECT_EQ(to_.NextText(), "x");
  Node other(ca_.Node());
  to_.receiver().SetUpstream(other.id());
  EXPECT_TRUE(absl::IsUnavailable(SendUntilBroken(*sender, to_)));
  const auto next = other.DialTo(to_);
  ASSERT_TRUE(next->Send(Frame("y"), kLong).ok());
  EXPECT_EQ(to_.NextText(), "y");
}

TEST_F(HopTest, StreamThatIsNeverUpstreamIsEndedUnread) {
  Node other(ca_.Node());
  const auto sender = other.DialTo(to_);
  ASSERT_TRUE(sender->Send(Frame("x"), kLong).ok());
  EXPECT_EQ(to_.NextText(kShort), "");
  to_.receiver().SetUpstream(from_.id());
  const absl::Status status = SendUntilBroken(*sender, to_);
  EXPECT_THAT(status.ToString(), HasSubstr("not upstream"));
}

TEST_F(HopTest, TwoStreamsOfTheUpstreamAreBothRead) {
  to_.receiver().SetUpstream(from_.id());
  const auto first = from_.DialTo(to_);
  const auto second = from_.DialTo(to_);
  ASSERT_TRUE(first->Send(Frame("a"), kLong).ok());
  ASSERT_TRUE(second->Send(Frame("b"), kLong).ok());
  std::vector<std::string> got = {to_.NextText(), to_.NextText()};
  EXPECT_THAT(got, ::testing::UnorderedElementsAre("a", "b"));
}

TEST_F(HopTest, SenderSeesAReceiverThatGoesAway) {
  to_.receiver().SetUpstream(from_.id());
  const auto sender = from_.DialTo(to_);
  ASSERT_TRUE(sender->Send(Frame("x"), kLong).ok());
  EXPECT_EQ(to_.NextText(), "x");
  to_.Stop();
  absl::Status status;
  while (status.ok()) status = sender->Send(Frame("x"), kLong);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST_F(HopTest, WhatWasSentBeforeTheSenderLeftStillArrives) {
  to_.receiver().SetUpstream(from_.id());
  std::thread sending([&] {
    const auto sender = from_.DialTo(to_);
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(sender->Send(Frame("x"), kLong).ok());
  });
  for (int i = 0; i < 10; ++i) EXPECT_EQ(to_.NextText(), "x");
  EXPECT_EQ(to_.NextText(kShort), "");
  sending.join();
}

TEST_F(HopTest, ShutdownWakesNextForGood) {
  std::thread waiting([&] { EXPECT_EQ(to_.NextText(absl::InfiniteDuration()), ""); });
  absl::SleepFor(absl::Milliseconds(20));
  to_.receiver().Shutdown();
  waiting.join();
  EXPECT_EQ(to_.NextText(absl::InfiniteDuration()), "");
}

TEST_F(HopTest, OtherMethodsAreUnimplemented) {
  grpc::GenericStub stub(from_.transport().Dial(to_.address(), to_.id()));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareUnaryCall(&context, "/efedllm.v1.Stage/Other", Frame("x"), &queue);
  grpc::ByteBuffer reply;
  grpc::Status status;
  call->StartCall();
  call->Finish(&reply, &status, nullptr);
  std::thread polling([&] { to_.receiver().Next(absl::Seconds(2)); });
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED) << status.error_message();
  to_.receiver().Shutdown();
  polling.join();
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
}

TEST_F(HopTest, PeerWithoutACertificateIsRefused) {
  Identity nobody = ca_.Node();
  nobody.key_pem.clear();
  nobody.certificate_pem.clear();
  to_.receiver().SetUpstream(from_.id());
  const Transport transport = Transport::Tls(nobody);
  const auto sender = HopSender::Open(transport, to_.address(), to_.id());
  const absl::Status status = SendUntilBroken(*sender, to_);
  EXPECT_THAT(status.ToString(), HasSubstr("no client certificate"));
}

TEST(Hop, InsecureFramesAreOfWhoTheSenderClaimsToBe) {
  Node from(Transport::Insecure(NodeId{5}));
  Node to(Transport::Insecure(NodeId{6}));
  to.receiver().SetUpstream(NodeId{5});
  const auto sender = from.DialTo(to);
  ASSERT_TRUE(sender->Send(Frame("x"), kLong).ok());
  EXPECT_EQ(to.NextText(), "x");
}

// The pipeline's shape: a ring of nodes, each with one thread that receives and one that sends.
TEST(Hop, RingOfNodesPassesFramesRound) {
  const TestCa ca;
  std::vector<std::unique_ptr<Node>> nodes;
  for (int i = 0; i < 3; ++i) nodes.push_back(std::make_unique<Node>(ca.Node()));
  for (size_t i = 0; i < 3; ++i) nodes[(i + 1) % 3]->receiver().SetUpstream(nodes[i]->id());
  std::vector<std::thread> stages;
  for (size_t i = 1; i < 3; ++i) {
    stages.emplace_back([&, i] {
      const auto sender = nodes[i]->DialTo(*nodes[(i + 1) % 3]);
      while (auto frame = nodes[i]->receiver().Next(kLong)) {
        EXPECT_TRUE(sender->Send(std::move(frame->bytes), kLong).ok());
      }
    });
  }
  {
    const auto sender = nodes[0]->DialTo(*nodes[1]);
    for (int i = 0; i < 300; ++i) {
      ASSERT_TRUE(sender->Send(Frame(std::to_string(i)), kLong).ok());
      ASSERT_EQ(nodes[0]->NextText(), std::to_string(i));
    }
  }
  for (auto& node : nodes) node->receiver().Shutdown();
  for (std::thread& stage : stages) stage.join();
}

}  // namespace
}  // namespace efedllm
