// The coordinator's questions to a node for audits: unary calls on the port where hops come in.
// Their messages are opaque bytes here (wire/receipt_wire.h and wire/replay_wire.h read them).
#ifndef EFEDLLM_NET_AUDIT_CALL_H_
#define EFEDLLM_NET_AUDIT_CALL_H_

#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "net/credentials.h"

namespace efedllm {

enum class AuditMethod {
  kRows,    // /efedllm.v1.Stage/Rows: rows that it keeps
  kReplay,  // /efedllm.v1.Stage/Replay: a stage, computed again
};

// One node, asked again and again. From one thread.
class AuditCaller {
 public:
  // transport is borrowed and outlives this.
  AuditCaller(const Transport& transport, const std::string& address, NodeId peer,
              AuditMethod method);
  ~AuditCaller();

  // Waits for the answer. Unavailable, DeadlineExceeded: it gave none; others as the node says. The
  // message is printable and short.
  absl::StatusOr<grpc::ByteBuffer> Ask(const grpc::ByteBuffer& request, absl::Duration timeout);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Answers the coordinator alone. Lives at least as long as the grpc::Server that it is registered
// with.
class AuditServer {
 public:
  // On one of gRPC's threads, one call at a time.
  using Handler = std::function<absl::StatusOr<grpc::ByteBuffer>(const grpc::ByteBuffer& request)>;

  // transport is borrowed and outlives this.
  AuditServer(const Transport& transport, AuditMethod method);
  ~AuditServer();

  // Before BuildAndStart.
  void Register(grpc::ServerBuilder& builder);
  // Who answers from now on; null, as at first: nobody. The one before gets no calls any more.
  // Thread-safe.
  void SetHandler(Handler handler);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace efedllm

#endif  // EFEDLLM_NET_AUDIT_CALL_H_
