#include "net/link_probe.h"

#include <grpcpp/generic/generic_stub.h>

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "net/echo_service.h"
#include "net/hop_method.h"

namespace efedllm {
namespace {

constexpr int kEchoes = 8;  // empty ones
constexpr absl::Duration kEchoesTime = absl::Seconds(2);
// Uploads grow until one lasts long enough to tell, so that a slow link is not burdened for long.
constexpr size_t kUploadBytes[] = {64 << 10, 256 << 10, kMaxEchoBytes, kMaxEchoBytes};
constexpr absl::Duration kUploadTime = absl::Milliseconds(400);

// An upload's last byte arrives after the link has carried all of them, and the answer comes after
// the link's latency. Small ones on a fast link last hardly longer than an empty echo.
double UploadRate(size_t bytes, absl::Duration took, absl::Duration rtt) {
  const absl::Duration carried = std::max({took - rtt, took / 4, absl::Nanoseconds(1)});
  return static_cast<double>(bytes) / absl::ToDoubleSeconds(carried);
}

}  // namespace

struct LinkProbe::Impl {
  const Transport& transport;
  grpc::GenericStub stub;

  absl::Mutex mu;
  bool cancelled ABSL_GUARDED_BY(mu) = false;
  grpc::ClientContext* context ABSL_GUARDED_BY(mu) = nullptr;  // of the call under way

  Impl(const Transport& transport, const std::string& address, NodeId peer)
      : transport(transport), stub(transport.Dial(address, peer)) {}

  // How long an echo of so many bytes takes.
  absl::StatusOr<absl::Duration> Echo(size_t bytes) ABSL_LOCKS_EXCLUDED(mu);
};

absl::StatusOr<absl::Duration> LinkProbe::Impl::Echo(size_t bytes) {
  const std::string data(bytes, '\0');
  const grpc::Slice slice(data);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer answer;
  grpc::ClientContext call;
  transport.Prepare(call);
  call.set_deadline(absl::ToChronoTime(absl::Now() + kEchoTimeout));
  {
    absl::MutexLock lock(&mu);
    if (cancelled) return absl::CancelledError("the measurement was cancelled");
    context = &call;
  }
  absl::Notification done;
  grpc::Status end;
  const absl::Time start = SteadyNow();
  stub.UnaryCall(&call, kEchoMethod, {}, &request, &answer, [&](grpc::Status status) {
    end = std::move(status);
    done.Notify();
  });
  done.WaitForNotification();
  const absl::Duration took = SteadyNow() - start;
  {
    absl::MutexLock lock(&mu);
    context = nullptr;
    if (cancelled) return absl::CancelledError("the measurement was cancelled");
  }
  if (end.ok()) return took;
  return absl::Status(static_cast<absl::StatusCode>(end.error_code()), end.error_message());
}

LinkProbe::LinkProbe(const Transport& transport, const std::string& address, NodeId peer)
    : impl_(std::make_unique<Impl>(transport, address, peer)) {}

LinkProbe::~LinkProbe() = default;

absl::StatusOr<LinkMeasurement> LinkProbe::Measure() {
  RETURN_IF_ERROR(impl_->Echo(0).status());  // opens the connection
  LinkMeasurement measurement;
  measurement.rtt = absl::InfiniteDuration();
  const absl::Time start = SteadyNow();
  for (int i = 0; i < kEchoes && SteadyNow() - start < kEchoesTime; ++i) {
    ASSIGN_OR_RETURN(const absl::Duration took, impl_->Echo(0));
    measurement.rtt = std::min(measurement.rtt, took);
  }
  const absl::Time uploads = SteadyNow();
  for (const size_t bytes : kUploadBytes) {
    const absl::StatusOr<absl::Duration> took = impl_->Echo(bytes);
    // Reachable, and too slow for more: what is known stays.
    if (absl::IsDeadlineExceeded(took.status())) break;
    RETURN_IF_ERROR(took.status());
    // The last says most: the connection's window has grown by then.
    measurement.bytes_per_second = UploadRate(bytes, *took, measurement.rtt);
    if (SteadyNow() - uploads > kUploadTime) break;
  }
  return measurement;
}

void LinkProbe::Cancel() {
  absl::MutexLock lock(&impl_->mu);
  impl_->cancelled = true;
  if (impl_->context != nullptr) impl_->context->TryCancel();
}

}  // namespace efedllm
