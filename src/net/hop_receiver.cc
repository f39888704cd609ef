#include <grpcpp/generic/async_generic_service.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "net/echo_service.h"
#include "net/hop.h"
#include "net/hop_method.h"

namespace efedllm {
namespace {

// Beside those that upstreams need: one each, and two while it reconnects.
constexpr size_t kSpareStreams = 14;
// Frames of a stream that wait for Next: one more than the one being computed is enough to keep
// the transport busy, and the rest is held back at the sender.
constexpr size_t kReadAhead = 2;
// What a stream may have in flight before anybody reads it. gRPC starts with 64 KiB, which costs a
// prefill frame dozens of round trips until its estimate of the link has grown.
constexpr int kWindowBytes = 4 << 20;

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace

struct HopReceiver::Impl final : grpc::CallbackGenericService {
  // kWaiting: for SetUpstream. kPaused: for Next. Both have no read under way.
  enum class State { kWaiting, kReading, kPaused, kEnding };

  // One call. gRPC's threads call it; it is destroyed in OnDone.
  struct Stream final : grpc::ServerGenericBidiReactor {
    Impl& receiver;
    NodeId peer;                    // constant once admitted
    State state = State::kWaiting;  // guarded by receiver.mu
    size_t ready = 0;               // frames of this stream in receiver.ready; likewise
    grpc::ByteBuffer frame;         // gRPC's while kReading

    explicit Stream(Impl& receiver) : receiver(receiver) {}
    void OnReadDone(bool ok) override { receiver.OnRead(*this, ok); }
    void OnCancel() override { receiver.OnCancelled(*this); }
    void OnDone() override { receiver.Forget(this); }
  };
  struct ReadyFrame {
    Stream* from;  // null: it has ended since
    HopFrame frame;
  };

  const Transport& transport;
  const size_t max_frame_bytes;
  EchoService echo;

  absl::Mutex mu;
  bool stopped ABSL_GUARDED_BY(mu) = false;
  std::vector<NodeId> upstreams ABSL_GUARDED_BY(mu);  // sorted
  std::map<Stream*, std::unique_ptr<Stream>> streams ABSL_GUARDED_BY(mu);
  std::deque<ReadyFrame> ready ABSL_GUARDED_BY(mu);  // of the upstream; kReadAhead a stream

  Impl(const Transport& transport, size_t max_frame_bytes)
      : transport(transport), max_frame_bytes(max_frame_bytes), echo(transport) {}

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override ABSL_LOCKS_EXCLUDED(mu);
  void OnRead(Stream& stream, bool ok) ABSL_LOCKS_EXCLUDED(mu);
  void OnCancelled(Stream& stream) ABSL_LOCKS_EXCLUDED(mu);
  void Forget(Stream* stream) ABSL_LOCKS_EXCLUDED(mu);
  void Admit(Stream& stream, const grpc::GenericCallbackServerContext& context)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Read(Stream& stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void End(Stream& stream, const grpc::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void EndOthers(const grpc::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool IsUpstream(NodeId peer) const ABSL_SHARED_LOCKS_REQUIRED(mu) {
    return std::binary_search(upstreams.begin(), upstreams.end(), peer);
  }
  bool ReadyOrStopped() const ABSL_SHARED_LOCKS_REQUIRED(mu) { return stopped || !ready.empty(); }
};

grpc::ServerGenericBidiReactor* HopReceiver::Impl::CreateReactor(
    grpc::GenericCallbackServerContext* context) {
  if (context->method() == kEchoMethod) return echo.Answer(*context);
  absl::MutexLock lock(&mu);
  auto owned = std::make_unique<Stream>(*this);
  Stream* stream = owned.get();
  streams.emplace(stream, std::move(owned));
  Admit(*stream, *context);
  return stream;
}

// Decides what becomes of a new call.
void HopReceiver::Impl::Admit(Stream& stream, const grpc::GenericCallbackServerContext& context) {
  if (context.method() != kHopMethod) {
    return End(stream, {grpc::StatusCode::UNIMPLEMENTED, "no such method"});
  }
  const absl::StatusOr<NodeId> peer = transport.PeerNode(context);
  if (!peer.ok()) return End(stream, ToGrpc(peer.status()));
  if (stopped) return End(stream, {grpc::StatusCode::UNAVAILABLE, "this node is shutting down"});
  stream.peer = *peer;
  for (auto& [other, owned] : streams) {  // one per peer waits: its newest
    if (other != &stream && other->state == State::kWaiting && other->peer == *peer) {
      End(*other, {grpc::StatusCode::ABORTED, "replaced by a newer stream"});
    }
  }
  if (streams.size() > kSpareStreams + 2 * std::max<size_t>(upstreams.size(), 1)) {
    return End(stream, {grpc::StatusCode::RESOURCE_EXHAUSTED, "too many streams into this node"});
  }
  if (IsUpstream(*peer)) Read(stream);
}

void HopReceiver::Impl::Read(Stream& stream) {
  stream.state = State::kReading;
  stream.StartRead(&stream.frame);
}

void HopReceiver::Impl::End(Stream& stream, const grpc::Status& why) {
  if (stream.state == State::kEnding) return;
  stream.state = State::kEnding;
  stream.Finish(why);
}

void HopReceiver::Impl::EndOthers(const grpc::Status& why) {
  for (auto& [stream, owned] : streams) {
    if (!IsUpstream(stream->peer)) End(*stream, why);
  }
  const auto is_of_others = [this](const ReadyFrame& frame) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return !IsUpstream(frame.frame.peer);
  };
  ready.erase(std::remove_if(ready.begin(), ready.end(), is_of_others), ready.end());
}

void HopReceiver::Impl::OnRead(Stream& stream, bool ok) {
  absl::MutexLock lock(&mu);
  if (stream.state == State::kEnding) return;
  if (!ok) return End(stream, grpc::Status::OK);
  if (stream.frame.Length() > max_frame_bytes) {
    return End(stream, {grpc::StatusCode::RESOURCE_EXHAUSTED, "a frame larger than any step's"});
  }
  ready.push_back({&stream, {.peer = stream.peer, .received = SteadyNow(), .bytes = {}}});
  ready.back().frame.bytes.Swap(&stream.frame);
  if (++stream.ready < kReadAhead) return Read(stream);
  stream.state = State::kPaused;
}

void HopReceiver::Impl::OnCancelled(Stream& stream) {
  absl::MutexLock lock(&mu);
  if (stream.state != State::kReading) End(stream, grpc::Status::CANCELLED);
}

void HopReceiver::Impl::Forget(Stream* stream) {
  absl::MutexLock lock(&mu);
  for (ReadyFrame& frame : ready) {
    if (frame.from == stream) frame.from = nullptr;
  }
  streams.erase(stream);
}

HopReceiver::HopReceiver(const Transport& transport, size_t max_frame_bytes)
    : impl_(std::make_unique<Impl>(transport, max_frame_bytes)) {}

void HopReceiver::Register(grpc::ServerBuilder& builder) {
  builder.RegisterCallbackGenericService(impl_.get());
  const size_t most = std::max(impl_->max_frame_bytes, kMaxEchoBytes);
  builder.SetMaxReceiveMessageSize(
      static_cast<int>(std::min<size_t>(most, std::numeric_limits<int>::max())));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
}

std::optional<HopFrame> HopReceiver::Next(absl::Duration timeout) {
  absl::MutexLock lock(&impl_->mu);
  impl_->mu.AwaitWithTimeout(absl::Condition(impl_.get(), &Impl::ReadyOrStopped), timeout);
  if (impl_->stopped || impl_->ready.empty()) return std::nullopt;
  Impl::ReadyFrame next = std::move(impl_->ready.front());
  impl_->ready.pop_front();
  if (next.from != nullptr) {
    --next.from->ready;
    if (next.from->state == Impl::State::kPaused) impl_->Read(*next.from);
  }
  return std::move(next.frame);
}

bool HopReceiver::Waits(absl::FunctionRef<bool(const HopFrame&)> is_it) const {
  absl::MutexLock lock(&impl_->mu);
  return std::any_of(impl_->ready.begin(), impl_->ready.end(),
                     [&](const Impl::ReadyFrame& ready) { return is_it(ready.frame); });
}

void HopReceiver::SetUpstream(std::optional<NodeId> peer) {
  SetUpstreams(peer ? std::vector<NodeId>{*peer} : std::vector<NodeId>());
}

void HopReceiver::SetUpstreams(std::vector<NodeId> peers) {
  std::sort(peers.begin(), peers.end());
  absl::MutexLock lock(&impl_->mu);
  impl_->upstreams = std::move(peers);
  impl_->EndOthers({grpc::StatusCode::ABORTED, "not upstream of this node"});
  for (auto& [stream, owned] : impl_->streams) {
    if (stream->state == Impl::State::kWaiting) impl_->Read(*stream);
  }
}

void HopReceiver::Shutdown() {
  absl::MutexLock lock(&impl_->mu);
  impl_->stopped = true;
  impl_->upstreams.clear();
  impl_->EndOthers({grpc::StatusCode::UNAVAILABLE, "this node is shutting down"});
}

HopReceiver::~HopReceiver() = default;

}  // namespace efedllm
