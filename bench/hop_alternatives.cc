#include "hop_alternatives.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server.h>

#include "absl/synchronization/mutex.h"
#include "common/bounded_queue.h"
#include "common/check.h"
#include "net/hop.h"

namespace efedllm {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(10);
constexpr char kMethod[] = "/bench/Hop";
constexpr size_t kMaxFrameBytes = 64u << 20;

// What the daemons use.
class HopLink final : public BenchLink {
 public:
  // with_control: another service shares the server, as in our daemons.
  HopLink(const Identity& self, NodeId peer)
      : transport_(Transport::Tls(self)), peer_(peer), receiver_(transport_, kMaxFrameBytes) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    receiver_.Register(builder);
    server_ = builder.BuildAndStart();
    receiver_.SetUpstream(peer);
  }
  ~HopLink() override {
    sender_.reset();
    receiver_.Shutdown();
    server_->Shutdown();
  }
  int port() const override { return port_; }
  void Dial(const std::string& address) override {
    sender_ = HopSender::Open(transport_, address, peer_);
  }
  void Send(grpc::ByteBuffer frame) override {
    CHECK(sender_->Send(std::move(frame), kTimeout).ok());
  }
  grpc::ByteBuffer Receive() override {
    auto frame = receiver_.Next(kTimeout);
    CHECK(frame.has_value());
    return std::move(frame->bytes);
  }

 private:
  const Transport transport_;
  const NodeId peer_;
  int port_ = 0;
  HopReceiver receiver_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<HopSender> sender_;
};

// The callback API at both ends: gRPC's threads read and write, and hand frames over.
class CallbackLink final : public BenchLink, public grpc::CallbackGenericService {
 public:
  CallbackLink(const Identity& self, NodeId peer) : transport_(Transport::Tls(self)), peer_(peer) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
  }
  ~CallbackLink() override {
    writer_->context.TryCancel();
    server_->Shutdown(std::chrono::system_clock::now());
    absl::MutexLock lock(&writer_->mu);
    writer_->mu.Await(absl::Condition(&writer_->done));
  }
  int port() const override { return port_; }
  void Dial(const std::string& address) override {
    channel_ = transport_.Dial(address, peer_);
    writer_ = std::make_unique<Writer>();
    grpc::GenericStub stub(channel_);
    stub.PrepareBidiStreamingCall(&writer_->context, kMethod, {}, writer_.get());
    writer_->StartCall();
  }
  void Send(grpc::ByteBuffer frame) override {
    {
      absl::MutexLock lock(&writer_->mu);
      writer_->mu.Await(absl::Condition(&writer_->writable));
      writer_->writable = false;
      writer_->frame = std::move(frame);
    }
    writer_->StartWrite(&writer_->frame);
  }
  grpc::ByteBuffer Receive() override {
    auto frame = received_.Pop(kTimeout);
    CHECK(frame.has_value());
    return std::move(*frame);
  }

 private:
  struct Writer final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
    void OnWriteDone(bool) override {
      absl::MutexLock lock(&mu);
      writable = true;
    }
    void OnDone(const grpc::Status&) override {
      absl::MutexLock lock(&mu);
      done = true;
    }
    grpc::ClientContext context;
    grpc::ByteBuffer frame;
    absl::Mutex mu;
    bool writable = true;
    bool done = false;
  };
  struct Reader final : public grpc::ServerGenericBidiReactor {
    explicit Reader(BoundedQueue<grpc::ByteBuffer>& to) : to(to) { StartRead(&frame); }
    void OnReadDone(bool ok) override {
      if (!ok) return Finish(grpc::Status::OK);
      grpc::ByteBuffer taken;
      taken.Swap(&frame);
      StartRead(&frame);
      CHECK(to.TryPush(std::move(taken)));
    }
    void OnDone() override { delete this; }
    BoundedQueue<grpc::ByteBuffer>& to;
    grpc::ByteBuffer frame;
  };
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new Reader(received_);
  }

  const Transport transport_;
  const NodeId peer_;
  int port_ = 0;
  BoundedQueue<grpc::ByteBuffer> received_{8};
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Writer> writer_;
};

}  // namespace

std::vector<BenchVariant> BenchVariants() {
  return {
      {"HopSender and HopReceiver",
       [](const Identity& self, NodeId peer) { return std::make_unique<HopLink>(self, peer); }},
      {"callback API at both ends",
       [](const Identity& self, NodeId peer) {
         return std::make_unique<CallbackLink>(self, peer);
       }},
  };
}

}  // namespace efedllm
