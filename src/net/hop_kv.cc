#include "net/hop_kv.h"

#include <grpcpp/client_context.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/method_handler.h>
#include <grpcpp/impl/codegen/rpc_service_method.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <atomic>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "net/hop_method.h"

namespace efedllm {
namespace {

constexpr char kEpochKey[] = "efedllm-epoch";  // metadata

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace

struct KvSender::Impl {
  const std::string peer_name;
  const std::shared_ptr<grpc::Channel> channel;
  grpc::ClientContext context;
  grpc::ByteBuffer answer;
  std::unique_ptr<grpc::ClientWriter<grpc::ByteBuffer>> writer;
  bool finished = false;
};

KvSender::KvSender(const Transport& transport, const std::string& address, NodeId peer,
                   Epoch next_epoch)
    : impl_(new Impl{.peer_name = absl::StrCat("node ", NodeName(peer), " at ", address),
                     .channel = transport.Dial(address, peer, kHopKeepalive)}) {
  transport.Prepare(impl_->context);
  impl_->context.AddMetadata(kEpochKey, absl::StrCat(next_epoch.v));
  impl_->context.set_deadline(absl::ToChronoTime(absl::Now() + kKvTimeout));
  // What a generated stub does.
  const grpc::internal::RpcMethod method(kKvMethod, grpc::internal::RpcMethod::CLIENT_STREAMING);
  impl_->writer.reset(grpc::internal::ClientWriterFactory<grpc::ByteBuffer>::Create(
      impl_->channel.get(), method, &impl_->context, &impl_->answer));
}

KvSender::~KvSender() {
  if (impl_->finished) return;
  impl_->context.TryCancel();
  impl_->writer->Finish().IgnoreError();
}

absl::Status KvSender::Send(const grpc::ByteBuffer& frame) {
  if (impl_->writer->Write(frame)) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(impl_->peer_name, " takes no more KV"));
}

absl::Status KvSender::Finish() {
  impl_->writer->WritesDone();
  impl_->finished = true;
  const absl::Status end = FromGrpcStatus(impl_->writer->Finish());
  if (end.ok()) return end;
  return absl::Status(end.code(), absl::StrCat(impl_->peer_name, ": ", end.message()));
}

void KvSender::Cancel() { impl_->context.TryCancel(); }

// A service with one method, as one would be generated. gRPC's threads run Receive.
struct KvReceiver::Impl final : grpc::Service {
  const Transport& transport;
  std::atomic<bool> busy{false};
  absl::Mutex mu;  // held while the sink works
  KvSink* sink ABSL_GUARDED_BY(mu) = nullptr;

  explicit Impl(const Transport& transport) : transport(transport) {
    using Handler =
        grpc::internal::ClientStreamingHandler<Impl, grpc::ByteBuffer, grpc::ByteBuffer>;
    AddMethod(new grpc::internal::RpcServiceMethod(
        kKvMethod, grpc::internal::RpcMethod::CLIENT_STREAMING,
        new Handler(
            [](Impl* self, grpc::ServerContext* context,
               grpc::ServerReader<grpc::ByteBuffer>* reader, grpc::ByteBuffer* answer) {
              return ToGrpcStatus(self->Receive(*context, *reader, *answer));
            },
            this)));
  }

  absl::Status Receive(const grpc::ServerContext& context,
                       grpc::ServerReader<grpc::ByteBuffer>& reader, grpc::ByteBuffer& answer)
      ABSL_LOCKS_EXCLUDED(mu);
  absl::Status WithSink(absl::FunctionRef<absl::Status(KvSink&)> use) ABSL_LOCKS_EXCLUDED(mu);
};

absl::Status KvReceiver::Impl::WithSink(absl::FunctionRef<absl::Status(KvSink&)> use) {
  absl::MutexLock lock(&mu);
  if (sink == nullptr) return absl::UnavailableError("this node takes no KV now");
  return use(*sink);
}

absl::Status KvReceiver::Impl::Receive(const grpc::ServerContext& context,
                                       grpc::ServerReader<grpc::ByteBuffer>& reader,
                                       grpc::ByteBuffer& answer) {
  const absl::StatusOr<NodeId> peer = transport.PeerNode(context);
  if (!peer.ok()) return peer.status();
  const auto named = context.client_metadata().find(kEpochKey);
  Epoch epoch;
  if (named == context.client_metadata().end() ||
      !absl::SimpleAtoi(absl::string_view(named->second.data(), named->second.size()), &epoch.v)) {
    return absl::InvalidArgumentError(absl::StrCat("no epoch in \"", kEpochKey, "\""));
  }
  // gRPC ends the call at its deadline, so that one that brings nothing does not stay.
  if (absl::FromChrono(context.deadline()) > absl::Now() + 2 * kKvTimeout) {
    return absl::InvalidArgumentError("a transfer of KV has a deadline");
  }
  if (busy.exchange(true)) {
    return absl::ResourceExhaustedError("another transfer of KV is under way");
  }
  const absl::Cleanup free = [this] { busy = false; };
  grpc::ByteBuffer frame;
  while (reader.Read(&frame)) {
    const absl::Status taken = WithSink([&](KvSink& to) { return to.TakeKv(frame); });
    if (!taken.ok()) return taken;
  }
  if (context.IsCancelled()) return absl::CancelledError("the transfer broke");
  const grpc::Slice nothing;
  answer = grpc::ByteBuffer(&nothing, 1);
  return WithSink([&](KvSink& to) { return to.FinishKv(*peer, epoch); });
}

KvReceiver::KvReceiver(const Transport& transport) : impl_(std::make_unique<Impl>(transport)) {}
KvReceiver::~KvReceiver() = default;

void KvReceiver::Register(grpc::ServerBuilder& builder) { builder.RegisterService(impl_.get()); }

void KvReceiver::SetSink(KvSink* sink) {
  absl::MutexLock lock(&impl_->mu);
  impl_->sink = sink;
}

}  // namespace efedllm
