#include "hop_alternatives.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/method_handler.h>
#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server.h>
#include <grpcpp/support/sync_stream.h>
#include <unistd.h>

#include <thread>

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

// The completion-queue API at both ends. The receiving thread polls its queue itself, so that a
// frame needs no hand-over; a thread of the sender's polls the other, as something must while
// nobody sends.
class QueueLink final : public BenchLink {
 public:
  QueueLink(const Identity& self, NodeId peer) : transport_(Transport::Tls(self)), peer_(peer) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    builder.RegisterAsyncGenericService(&service_);
    server_queue_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    service_.RequestCall(&server_context_, &reader_, server_queue_.get(), server_queue_.get(),
                         nullptr);
  }
  ~QueueLink() override { _exit(0); }  // its orderly end would be most of the code
  int port() const override { return port_; }
  void Dial(const std::string& address) override {
    grpc::GenericStub stub(transport_.Dial(address, peer_));
    writer_ = stub.PrepareCall(&client_context_, kMethod, &client_queue_);
    writer_->StartCall(nullptr);
    polling_ = std::thread([this] {
      void* tag = nullptr;
      bool ok = false;
      while (client_queue_.Next(&tag, &ok)) {
        absl::MutexLock lock(&mu_);
        writable_ = true;
      }
    });
  }
  void Send(grpc::ByteBuffer frame) override {
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&writable_));
      writable_ = false;
    }
    writer_->Write(frame, nullptr);
  }
  grpc::ByteBuffer Receive() override {
    if (!accepted_) AwaitEvent();
    if (!accepted_) reader_.Read(&frame_, nullptr);
    accepted_ = true;
    AwaitEvent();
    grpc::ByteBuffer taken;
    taken.Swap(&frame_);
    reader_.Read(&frame_, nullptr);
    return taken;
  }

 private:
  void AwaitEvent() {
    void* tag = nullptr;
    bool ok = false;
    CHECK(server_queue_->Next(&tag, &ok) && ok);
  }

  const Transport transport_;
  const NodeId peer_;
  int port_ = 0;
  grpc::AsyncGenericService service_;
  std::unique_ptr<grpc::ServerCompletionQueue> server_queue_;
  std::unique_ptr<grpc::Server> server_;
  grpc::GenericServerContext server_context_;
  grpc::GenericServerAsyncReaderWriter reader_{&server_context_};
  bool accepted_ = false;
  grpc::ByteBuffer frame_;
  grpc::ClientContext client_context_;
  grpc::CompletionQueue client_queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> writer_;
  std::thread polling_;
  absl::Mutex mu_;
  bool writable_ = false;
};

// The synchronous API: a blocking writer, and a handler on a thread of the server's pool that
// hands frames over.
class SyncLink final : public BenchLink, public grpc::Service {
 public:
  SyncLink(const Identity& self, NodeId peer) : transport_(Transport::Tls(self)), peer_(peer) {
    using Handler =
        grpc::internal::ClientStreamingHandler<SyncLink, grpc::ByteBuffer, grpc::ByteBuffer>;
    AddMethod(new grpc::internal::RpcServiceMethod(
        kMethod, grpc::internal::RpcMethod::CLIENT_STREAMING,
        new Handler(
            [](SyncLink* link, grpc::ServerContext*, grpc::ServerReader<grpc::ByteBuffer>* reader,
               grpc::ByteBuffer*) {
              grpc::ByteBuffer frame;
              while (reader->Read(&frame)) {
                grpc::ByteBuffer taken;
                taken.Swap(&frame);
                CHECK(link->received_.TryPush(std::move(taken)));
              }
              return grpc::Status::CANCELLED;
            },
            this)));
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~SyncLink() override { _exit(0); }
  int port() const override { return port_; }
  void Dial(const std::string& address) override {
    channel_ = transport_.Dial(address, peer_);
    const grpc::internal::RpcMethod method(kMethod, grpc::internal::RpcMethod::CLIENT_STREAMING,
                                           channel_);
    writer_.reset(grpc::internal::ClientWriterFactory<grpc::ByteBuffer>::Create(
        channel_.get(), method, &context_, &answer_));
  }
  void Send(grpc::ByteBuffer frame) override { CHECK(writer_->Write(frame)); }
  grpc::ByteBuffer Receive() override {
    auto frame = received_.Pop(kTimeout);
    CHECK(frame.has_value());
    return std::move(*frame);
  }

 private:
  const Transport transport_;
  const NodeId peer_;
  int port_ = 0;
  BoundedQueue<grpc::ByteBuffer> received_{8};
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  grpc::ByteBuffer answer_;
  std::unique_ptr<grpc::ClientWriter<grpc::ByteBuffer>> writer_;
};

}  // namespace

std::vector<BenchVariant> BenchVariants() {
  return {
      {"HopSender and HopReceiver (callback API)",
       [](const Identity& self, NodeId peer) { return std::make_unique<HopLink>(self, peer); }},
      {"completion queues, Next polls its own",
       [](const Identity& self, NodeId peer) { return std::make_unique<QueueLink>(self, peer); }},
      {"synchronous API",
       [](const Identity& self, NodeId peer) { return std::make_unique<SyncLink>(self, peer); }},
  };
}

}  // namespace efedllm
