// KV from one node to another that will go on with it: a client-streaming call,
// /efedllm.v1.Stage/Kv, on the port where hops come in. Its messages are opaque bytes here
// (wire/kv_wire.h reads them).
#ifndef EFEDLLM_NET_HOP_KV_H_
#define EFEDLLM_NET_HOP_KV_H_

#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "net/credentials.h"

namespace efedllm {

// A transfer may take this long; where it would take longer, replay is faster.
inline constexpr absl::Duration kKvTimeout = absl::Minutes(1);

// One transfer. All but Cancel from one thread.
class KvSender {
 public:
  // Opens the call. next_epoch: of the stage that the peer has prepared. transport is borrowed and
  // outlives this.
  KvSender(const Transport& transport, const std::string& address, NodeId peer, Epoch next_epoch);
  ~KvSender();  // cancels what Finish has not ended

  // Waits until the transport has room. Not OK: the call is over, and Finish says why.
  absl::Status Send(const grpc::ByteBuffer& frame);
  // Once. OK: the peer has taken all.
  absl::Status Finish();
  // Ends both soon. Thread-safe.
  void Cancel();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What takes the frames of a transfer.
class KvSink {
 public:
  virtual ~KvSink() = default;
  // Not OK: the transfer fails with it.
  virtual absl::Status TakeKv(const grpc::ByteBuffer& frame) = 0;
  // After the last frame.
  virtual absl::Status FinishKv(NodeId from, Epoch next_epoch) = 0;
};

// The receiving end: of one transfer at a time, from nodes alone. Lives at least as long as the
// grpc::Server that it is registered with.
class KvReceiver {
 public:
  // transport is borrowed and outlives this.
  explicit KvReceiver(const Transport& transport);
  ~KvReceiver();

  // Before BuildAndStart.
  void Register(grpc::ServerBuilder& builder);
  // Transfers go to this sink, which is called on gRPC's threads, one call at a time; null: they
  // are refused. The sink before gets no calls any more. Thread-safe.
  void SetSink(KvSink* sink);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace efedllm

#endif  // EFEDLLM_NET_HOP_KV_H_
