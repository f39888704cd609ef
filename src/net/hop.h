// Frames from one node to the next: a long-lived client-streaming call, /efedllm.v1.Stage/Hop,
// whose messages are opaque bytes here (wire/step_wire.h reads them). How it is built, and what a
// hop costs: docs/decisions/0008-hop-transport.md and bench/hop_bench.cc.
#ifndef EFEDLLM_NET_HOP_H_
#define EFEDLLM_NET_HOP_H_

#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "net/credentials.h"

namespace efedllm {

// The sending end of one edge. Send from one thread at a time.
class FrameSender {
 public:
  virtual ~FrameSender() = default;
  // Hands a frame to the transport, and waits while the one before is not taken. OK says no more:
  // what a broken stream had under way is lost, and the next Send tells. Unavailable: the stream
  // broke (by what), and stays broken; DeadlineExceeded: the peer took nothing for timeout.
  virtual absl::Status Send(grpc::ByteBuffer frame, absl::Duration timeout) = 0;
  // What is under way matters no more: the stream is cut, and nobody waits for its end. From any
  // thread.
  virtual void Abandon() {}
  // Whether the peer is there, whatever becomes of frames: OK, or why not, after at most timeout.
  // Thread-safe. A transport that can't tell says OK.
  virtual absl::Status Echo(absl::Duration /*timeout*/) { return absl::OkStatus(); }
};

class HopSender final : public FrameSender {
 public:
  // Opens a connection with the first Send or Echo, and the stream with the first Send: by then the
  // peer knows of its upstream. transport is borrowed and outlives this.
  static std::unique_ptr<HopSender> Open(const Transport& transport, const std::string& address,
                                         NodeId peer);
  ~HopSender() override;  // ends the stream, waits for what is under way, bounded

  absl::Status Send(grpc::ByteBuffer frame, absl::Duration timeout) override;
  void Abandon() override;
  // Unavailable, DeadlineExceeded, or what the peer says: it is not there.
  absl::Status Echo(absl::Duration timeout) override;

 private:
  struct Impl;
  explicit HopSender(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct HopFrame {
  NodeId peer;          // proven by its certificate
  absl::Time received;  // when the transport had all of it, by the steady clock
  grpc::ByteBuffer bytes;
};

// The receiving end of all edges into a node. Lives at least as long as the grpc::Server that it is
// registered with.
class HopReceiver {
 public:
  // max_frame_bytes: larger messages end their stream.
  HopReceiver(const Transport& transport, size_t max_frame_bytes);
  ~HopReceiver();

  // Before BuildAndStart. Bounds the messages of the server's other services by max_frame_bytes
  // too, or by what link_probe.h sends where that is more.
  void Register(grpc::ServerBuilder& builder);

  // The next frame of the upstream's streams; frames of a stream in order. One thread at a time.
  // While nobody calls, two frames of a stream wait here and its sender is held back. nullopt:
  // timeout, or Shutdown.
  std::optional<HopFrame> Next(absl::Duration timeout);

  // Whether a frame waits for Next that is as asked. Thread-safe.
  bool Waits(absl::FunctionRef<bool(const HopFrame&)> is_it) const;

  // Only this peer's streams are read from now on; streams of others end. nullopt, as at first:
  // nobody's. A stream that another peer opens later waits unread for the next SetUpstream, so that
  // the two ends of an edge may hear of a new plan in any order. Thread-safe.
  void SetUpstream(std::optional<NodeId> peer);
  // The same for several peers at once.
  void SetUpstreams(std::vector<NodeId> peers);

  // Wakes Next for good and ends all streams. Call it before grpc::Server::Shutdown, which waits
  // for that end.
  void Shutdown();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace efedllm

#endif  // EFEDLLM_NET_HOP_H_
