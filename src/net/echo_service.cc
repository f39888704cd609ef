#include "net/echo_service.h"

#include <chrono>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace efedllm {
namespace {

// A node measures one link at a time; more than a few at once are not from ours.
constexpr int kMaxUnderWay = 8;

grpc::Status InvalidArgument(const std::string& why) {
  return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, why);
}

}  // namespace

// One call. gRPC calls one of its On... at a time; deletes itself.
class EchoService::Call final : public grpc::ServerGenericBidiReactor {
 public:
  Call(const grpc::Status& admitted, std::atomic<int>& under_way) : under_way_(under_way) {
    if (admitted.ok()) {
      StartRead(&request_);
    } else {
      End(admitted);
    }
  }
  void OnReadDone(bool ok) override {
    if (!ok) return End(InvalidArgument("an echo brings a message"));
    if (request_.Length() > kMaxEchoBytes) {
      return End(InvalidArgument(absl::StrCat("an echo brings at most ", kMaxEchoBytes,
                                              " bytes, this one ", request_.Length())));
    }
    request_.Clear();
    const grpc::Slice nothing;
    answer_ = grpc::ByteBuffer(&nothing, 1);
    --under_way_;
    StartWriteAndFinish(&answer_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  // Not only in OnDone, which may come after the peer's next echo.
  void End(const grpc::Status& why) {
    --under_way_;
    Finish(why);
  }

  std::atomic<int>& under_way_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer answer_;
};

grpc::ServerGenericBidiReactor* EchoService::Answer(
    const grpc::GenericCallbackServerContext& context) {
  const int under_way = ++under_way_;
  return new Call(Admit(context, under_way), under_way_);
}

grpc::Status EchoService::Admit(const grpc::GenericCallbackServerContext& context,
                                int under_way) const {
  const absl::Status peer = transport_.PeerNode(context).status();
  if (!peer.ok()) {
    return grpc::Status(static_cast<grpc::StatusCode>(peer.code()), std::string(peer.message()));
  }
  if (under_way > kMaxUnderWay) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many echoes at a time");
  }
  // gRPC ends the call at its deadline, so that one that brings nothing does not stay.
  if (absl::FromChrono(context.deadline()) > absl::Now() + 2 * kEchoTimeout) {
    return InvalidArgument("an echo has a deadline of a few seconds");
  }
  return grpc::Status::OK;
}

}  // namespace efedllm
