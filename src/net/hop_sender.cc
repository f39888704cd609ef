#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "net/hop.h"
#include "net/hop_method.h"

namespace efedllm {
namespace {

constexpr absl::Duration kCloseTimeout = absl::Seconds(1);

}  // namespace

// gRPC allows one write of a stream at a time. A write is done as soon as the transport has room
// for it, so a second frame waits only behind a peer or a link that is slower than we are. The
// receiver sends nothing: a read that is always under way tells when the stream ends.
struct HopSender::Impl final : grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
  // Constant after Open, or used by gRPC alone.
  const Transport& transport;
  std::string peer_name;
  std::shared_ptr<grpc::Channel> channel;
  grpc::ClientContext context;
  grpc::ByteBuffer unexpected;

  absl::Mutex mu;
  bool started ABSL_GUARDED_BY(mu) = false;    // with the first frame
  grpc::ByteBuffer frame ABSL_GUARDED_BY(mu);  // the write under way
  bool writing ABSL_GUARDED_BY(mu) = false;    // the peer or the link has not taken it yet
  bool ended ABSL_GUARDED_BY(mu) = false;      // no operation may be started any more
  bool done ABSL_GUARDED_BY(mu) = false;       // gRPC will not call again, status is final
  grpc::Status status ABSL_GUARDED_BY(mu);

  explicit Impl(const Transport& transport) : transport(transport) {}

  void Start() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    started = true;
    transport.Prepare(context);
    grpc::GenericStub stub(channel);
    stub.PrepareBidiStreamingCall(&context, kHopMethod, {}, this);
    AddHold();  // writes start outside of gRPC's callbacks
    StartRead(&unexpected);
    StartCall();
  }

  bool WritableOrEnded() const ABSL_SHARED_LOCKS_REQUIRED(mu) { return !writing || ended; }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu) {
    absl::MutexLock lock(&mu);
    if (ok) writing = false;  // else OnDone follows, and says why
  }
  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu) {
    if (ok) context.TryCancel();  // a peer that answers is not one of ours
    absl::MutexLock lock(&mu);
    ended = true;
    RemoveHold();
  }
  void OnDone(const grpc::Status& final_status) override ABSL_LOCKS_EXCLUDED(mu) {
    absl::MutexLock lock(&mu);
    status = final_status;
    done = true;
  }
};

std::unique_ptr<HopSender> HopSender::Open(const Transport& transport, const std::string& address,
                                           NodeId peer) {
  auto impl = std::make_unique<Impl>(transport);
  impl->peer_name = absl::StrCat("node ", NodeName(peer), " at ", address);
  impl->channel = transport.Dial(address, peer, kHopKeepalive);
  return std::unique_ptr<HopSender>(new HopSender(std::move(impl)));
}

HopSender::HopSender(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::Status HopSender::Send(grpc::ByteBuffer frame, absl::Duration timeout) {
  Impl& impl = *impl_;
  absl::MutexLock lock(&impl.mu);
  if (!impl.started) impl.Start();
  impl.mu.AwaitWithTimeout(absl::Condition(&impl, &Impl::WritableOrEnded), timeout);
  if (impl.ended) {
    impl.mu.Await(absl::Condition(&impl.done));  // at once: nothing is under way
    return absl::UnavailableError(absl::StrCat(
        "the stream to ", impl.peer_name,
        " broke: ", impl.status.ok() ? "the peer ended it" : impl.status.error_message()));
  }
  if (impl.writing) {
    return absl::DeadlineExceededError(
        absl::StrCat(impl.peer_name, " took no frame for ", absl::FormatDuration(timeout)));
  }
  impl.writing = true;
  impl.frame.Swap(&frame);
  impl.StartWrite(&impl.frame);  // slices are shared, bytes are not copied
  return absl::OkStatus();
}

absl::Status HopSender::Echo(absl::Duration timeout) {
  grpc::ClientContext context;
  impl_->transport.Prepare(context);
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  const grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer answer;
  absl::Notification done;
  grpc::Status end;
  grpc::GenericStub stub(impl_->channel);
  stub.UnaryCall(&context, kEchoMethod, {}, &request, &answer, [&](grpc::Status status) {
    end = std::move(status);
    done.Notify();
  });
  done.WaitForNotification();
  if (end.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(end.error_code()),
                      absl::StrCat(impl_->peer_name, " does not answer: ", end.error_message()));
}

void HopSender::Abandon() {
  bool under_way = false;
  {
    absl::MutexLock lock(&impl_->mu);
    under_way = impl_->started && !impl_->done;
  }
  if (under_way) impl_->context.TryCancel();
}

HopSender::~HopSender() {
  Impl& impl = *impl_;
  const absl::Time deadline = absl::Now() + kCloseTimeout;
  absl::MutexLock lock(&impl.mu);
  if (!impl.started) return;
  impl.mu.AwaitWithDeadline(absl::Condition(&impl, &Impl::WritableOrEnded), deadline);
  if (!impl.writing && !impl.ended) impl.StartWritesDone();
  if (!impl.mu.AwaitWithDeadline(absl::Condition(&impl.done), deadline)) {
    impl.context.TryCancel();
    impl.mu.Await(absl::Condition(&impl.done));
  }
}

}  // namespace efedllm
