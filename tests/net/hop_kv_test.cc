#include "net/hop_kv.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "net/hop.h"
#include "net/net_world.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

constexpr Epoch kNext{7};

grpc::ByteBuffer Frame(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

class CountingSink final : public KvSink {
 public:
  absl::Status TakeKv(const grpc::ByteBuffer& frame) override {
    bytes += frame.Length();
    return verdict;
  }
  absl::Status FinishKv(NodeId node, Epoch epoch) override {
    from = node;
    next_epoch = epoch;
    return absl::OkStatus();
  }

  uint64_t bytes = 0;
  absl::Status verdict;
  NodeId from;
  Epoch next_epoch;
};

class HopKvTest : public ::testing::Test {
 protected:
  HopKvTest() {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    hops_.Register(builder);
    receiver_.Register(builder);
    server_ = builder.BuildAndStart();
    receiver_.SetSink(&sink_);
  }
  ~HopKvTest() override {
    hops_.Shutdown();
    server_->Shutdown(std::chrono::system_clock::now());
  }

  std::unique_ptr<KvSender> Open() {
    return std::make_unique<KvSender>(from_, "127.0.0.1:" + std::to_string(port_),
                                      transport_.self(), kNext);
  }

  TestCa ca_;
  const Transport transport_ = Transport::Tls(ca_.Node());
  const Transport from_ = Transport::Tls(ca_.Node());
  HopReceiver hops_{transport_, 8u << 20};
  KvReceiver receiver_{transport_};
  CountingSink sink_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(HopKvTest, FramesArriveAndTheEndSaysFromWhomAndForWhichEpoch) {
  const auto sender = Open();
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(sender->Send(Frame(std::string(4u << 20, 'x'))).ok());
  }
  const absl::Status end = sender->Finish();
  ASSERT_TRUE(end.ok()) << end;
  EXPECT_EQ(sink_.bytes, 8u * (4u << 20));
  EXPECT_EQ(sink_.from, from_.self());
  EXPECT_EQ(sink_.next_epoch, kNext);
}

TEST_F(HopKvTest, AnEmptyTransferEndsWell) {
  EXPECT_TRUE(Open()->Finish().ok());
  EXPECT_EQ(sink_.next_epoch, kNext);
}

TEST_F(HopKvTest, WhatTheSinkRefusesFailsTheTransferWithItsReason) {
  sink_.verdict = absl::FailedPreconditionError("no such stage");
  const auto sender = Open();
  while (sender->Send(Frame("x")).ok()) {
  }
  const absl::Status end = sender->Finish();
  EXPECT_TRUE(absl::IsFailedPrecondition(end)) << end;
  EXPECT_THAT(std::string(end.message()), HasSubstr("no such stage"));
  EXPECT_EQ(sink_.next_epoch, Epoch{0});
}

TEST_F(HopKvTest, NothingIsTakenWithoutASink) {
  receiver_.SetSink(nullptr);
  EXPECT_TRUE(absl::IsUnavailable(Open()->Finish()));
}

TEST_F(HopKvTest, ATransferThatBreaksIsNotFinished) {
  {
    const auto sender = Open();
    ASSERT_TRUE(sender->Send(Frame("x")).ok());
  }
  const auto cancelled = Open();
  cancelled->Cancel();
  EXPECT_FALSE(cancelled->Finish().ok());
  EXPECT_EQ(sink_.next_epoch, Epoch{0});
}

TEST_F(HopKvTest, OneTransferAtATime) {
  const auto first = Open();
  ASSERT_TRUE(first->Send(Frame("x")).ok());
  absl::Status second;
  do {  // until the first has begun
    second = Open()->Finish();
  } while (second.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(second)) << second;
  EXPECT_TRUE(first->Finish().ok());
}

TEST_F(HopKvTest, AStrangerIsRefused) {
  Identity nobody = ca_.Node();
  nobody.key_pem.clear();
  nobody.certificate_pem.clear();
  const Transport stranger = Transport::Tls(nobody);
  KvSender sender(stranger, "127.0.0.1:" + std::to_string(port_), transport_.self(), kNext);
  EXPECT_TRUE(absl::IsUnauthenticated(sender.Finish()));
}

TEST_F(HopKvTest, NobodyThereIsUnavailable) {
  hops_.Shutdown();
  server_->Shutdown(std::chrono::system_clock::now());
  EXPECT_TRUE(absl::IsUnavailable(Open()->Finish()));
}

}  // namespace
}  // namespace efedllm
