#include "net/audit_call.h"

#include <grpcpp/client_context.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/impl/codegen/method_handler.h>
#include <grpcpp/impl/codegen/rpc_service_method.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "net/hop_method.h"

namespace efedllm {
namespace {

constexpr size_t kMostMessageBytes = 300;

const char* MethodName(AuditMethod method) {
  return method == AuditMethod::kRows ? kRowsMethod : kReplayMethod;
}

}  // namespace

struct AuditCaller::Impl {
  const Transport& transport;
  const std::string peer_name;
  const AuditMethod method;
  const std::shared_ptr<grpc::Channel> channel;
};

AuditCaller::AuditCaller(const Transport& transport, const std::string& address, NodeId peer,
                         AuditMethod method)
    : impl_(new Impl{transport, absl::StrCat("node ", NodeName(peer), " at ", address), method,
                     transport.Dial(address, peer)}) {}

AuditCaller::~AuditCaller() = default;

absl::StatusOr<grpc::ByteBuffer> AuditCaller::Ask(const grpc::ByteBuffer& request,
                                                  absl::Duration timeout) {
  grpc::ClientContext context;
  impl_->transport.Prepare(context);
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  // What a generated stub does.
  const grpc::internal::RpcMethod method(MethodName(impl_->method),
                                         grpc::internal::RpcMethod::NORMAL_RPC);
  grpc::ByteBuffer answer;
  const grpc::Status status = grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
      impl_->channel.get(), method, &context, request, &answer);
  if (status.ok()) return answer;
  return absl::Status(
      static_cast<absl::StatusCode>(status.error_code()),
      absl::StrCat(impl_->peer_name, ": ", Printable(status.error_message(), kMostMessageBytes)));
}

// A service with one method, as one would be generated. gRPC's threads run Answer.
struct AuditServer::Impl final : grpc::Service {
  const Transport& transport;
  absl::Mutex mu;  // held while the handler works
  AuditServer::Handler handler ABSL_GUARDED_BY(mu);

  Impl(const Transport& transport, AuditMethod method) : transport(transport) {
    using MethodHandler = grpc::internal::RpcMethodHandler<Impl, grpc::ByteBuffer, grpc::ByteBuffer,
                                                           grpc::ByteBuffer, grpc::ByteBuffer>;
    AddMethod(new grpc::internal::RpcServiceMethod(
        MethodName(method), grpc::internal::RpcMethod::NORMAL_RPC,
        new MethodHandler(
            [](Impl* self, grpc::ServerContext* context, const grpc::ByteBuffer* request,
               grpc::ByteBuffer* answer) {
              const absl::Status status = self->Answer(*context, *request, *answer);
              return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                                  std::string(status.message()));
            },
            this)));
  }

  absl::Status Answer(const grpc::ServerContext& context, const grpc::ByteBuffer& request,
                      grpc::ByteBuffer& answer) ABSL_LOCKS_EXCLUDED(mu) {
    const absl::StatusOr<NodeId> peer = transport.PeerNode(context);
    if (!peer.ok()) return peer.status();
    if (*peer != kCoordinatorNode) {
      return absl::PermissionDeniedError("this is for the coordinator alone");
    }
    absl::MutexLock lock(&mu);
    if (!handler) return absl::UnavailableError("this node is attached to no coordinator");
    absl::StatusOr<grpc::ByteBuffer> found = handler(request);
    if (!found.ok()) return found.status();
    answer = *std::move(found);
    return absl::OkStatus();
  }
};

AuditServer::AuditServer(const Transport& transport, AuditMethod method)
    : impl_(std::make_unique<Impl>(transport, method)) {}
AuditServer::~AuditServer() = default;

void AuditServer::Register(grpc::ServerBuilder& builder) { builder.RegisterService(impl_.get()); }

void AuditServer::SetHandler(Handler handler) {
  absl::MutexLock lock(&impl_->mu);
  impl_->handler = std::move(handler);
}

}  // namespace efedllm
