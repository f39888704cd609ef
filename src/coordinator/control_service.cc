#include "coordinator/control_service.h"

#include <spdlog/spdlog.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "coordinator/membership_rules.h"
#include "wire/cluster_wire.h"
#include "wire/handover_wire.h"
#include "wire/ledger_wire.h"
#include "wire/link_wire.h"
#include "wire/receipt_wire.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

using ControlReactor = grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>;

// A worker that does not read what it is sent is not one.
constexpr size_t kMaxOutbox = 16;

// The sending half of a control stream. Outlives the stream.
class ControlLink final : public WorkerLink, public LedgerHeadKeeper {
 public:
  ControlLink(grpc::CallbackServerContext* context, ControlReactor* reactor)
      : context_(context), reactor_(reactor) {}

  void Assign(const Assignment& assignment) override {
    v1::CoordinatorMessage message;
    *message.mutable_assignment() = ToWire(assignment);
    Send(std::move(message));
  }
  void Release(Epoch epoch) override {
    v1::CoordinatorMessage message;
    message.mutable_release()->set_epoch(epoch.v);
    Send(std::move(message));
  }
  void Measure(const MeasureLinks& links) override {
    v1::CoordinatorMessage message;
    *message.mutable_measure_links() = ToWire(links);
    Send(std::move(message));
  }
  void HandOver(const efedllm::HandOver& hand_over) override {
    v1::CoordinatorMessage message;
    *message.mutable_hand_over() = ToWire(hand_over);
    Send(std::move(message));
  }
  void Prefetch(const efedllm::Prefetch& prefetch) override {
    v1::CoordinatorMessage message;
    *message.mutable_prefetch() = ToWire(prefetch);
    Send(std::move(message));
  }
  void Offer(const LedgerHeadOffer& offer) override {
    v1::CoordinatorMessage message;
    *message.mutable_ledger_head() = ToWire(offer);
    Send(std::move(message));
  }
  void Close(const absl::Status& why) override {
    absl::MutexLock lock(&mu_);
    if (finish_) return;
    finish_ = ToGrpc(why);
    if (reactor_ == nullptr) return;
    if (outbox_.empty()) {
      reactor_->Finish(*finish_);
    } else if (!absl::IsUnavailable(why)) {
      // What waits to be sent is for nobody.
      context_->TryCancel();
    }
  }

  void Send(v1::CoordinatorMessage message) {
    absl::MutexLock lock(&mu_);
    if (reactor_ == nullptr || finish_) return;
    if (outbox_.size() >= kMaxOutbox) return context_->TryCancel();
    outbox_.push_back(std::move(message));
    if (outbox_.size() == 1) reactor_->StartWrite(&outbox_.front());
  }
  void OnWriteDone(bool ok) {
    absl::MutexLock lock(&mu_);
    if (ok) {
      outbox_.pop_front();
    } else {
      outbox_.clear();
      if (!finish_) finish_ = grpc::Status(grpc::StatusCode::UNAVAILABLE, "the stream broke");
    }
    if (!outbox_.empty()) {
      reactor_->StartWrite(&outbox_.front());
    } else if (finish_) {
      reactor_->Finish(*finish_);
    }
  }
  void OnDone() {
    absl::MutexLock lock(&mu_);
    reactor_ = nullptr;
    context_ = nullptr;
  }

 private:
  absl::Mutex mu_;
  grpc::CallbackServerContext* context_ ABSL_GUARDED_BY(mu_);
  ControlReactor* reactor_ ABSL_GUARDED_BY(mu_);  // null: the stream is done
  // The first is being written. Finish comes after the last.
  std::deque<v1::CoordinatorMessage> outbox_ ABSL_GUARDED_BY(mu_);
  std::optional<grpc::Status> finish_ ABSL_GUARDED_BY(mu_);
};

// One control stream. gRPC calls one of its On... at a time for reads; deletes itself.
class ControlStream final : public ControlReactor {
 public:
  ControlStream(grpc::CallbackServerContext* context, absl::StatusOr<NodeId> node,
                EpochKeeper& keeper, Enroller& enroller, ReceiptChecker& receipts,
                bool want_receipts, LedgerHeadPublisher* heads)
      : node_(std::move(node)),
        peer_(context->peer()),
        keeper_(keeper),
        enroller_(enroller),
        receipts_(receipts),
        want_receipts_(want_receipts),
        heads_(heads),
        link_(std::make_shared<ControlLink>(context, this)) {
    if (!node_.ok()) {
      link_->Close(node_.status());
      return;
    }
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      if (node_.ok()) keeper_.OnDetached(*node_, link_.get());
      link_->Close(absl::CancelledError("the worker closed the stream"));
      return;
    }
    const absl::Status taken = Take();
    if (!taken.ok()) {
      spdlog::warn("refused {} at {}: {}", NodeName(*node_), Printable(peer_),
                   std::string(taken.message()));
      if (attached_) keeper_.OnDetached(*node_, link_.get());
      link_->Close(taken);
      return;
    }
    StartRead(&message_);
  }
  void OnWriteDone(bool ok) override { link_->OnWriteDone(ok); }
  void OnDone() override {
    if (attached_) keeper_.OnDetached(*node_, link_.get());
    if (heads_ != nullptr) heads_->OnGone(link_.get());
    link_->OnDone();
    delete this;
  }

 private:
  absl::Status Take() {
    if (!attached_) return TakeHello();
    switch (message_.message_case()) {
      case v1::WorkerMessage::kStageStatus: {
        ASSIGN_OR_RETURN(const StageReport report, FromWire(message_.stage_status()));
        keeper_.OnReport(*node_, link_.get(), report);
        return absl::OkStatus();
      }
      case v1::WorkerMessage::kHeartbeat: {
        ASSIGN_OR_RETURN(const StageCounters counters, FromWire(message_.heartbeat()));
        keeper_.OnHeartbeat(*node_, link_.get(), counters);
        SendPing();
        return absl::OkStatus();
      }
      case v1::WorkerMessage::kPong: {
        ASSIGN_OR_RETURN(const Pong pong, FromWire(message_.pong()));
        TakePong(pong);
        return absl::OkStatus();
      }
      case v1::WorkerMessage::kLinkReport: {
        ASSIGN_OR_RETURN(const LinkReport report, FromWire(message_.link_report()));
        TakeLinkReport(report);
        return absl::OkStatus();
      }
      case v1::WorkerMessage::kHandedOver: {
        ASSIGN_OR_RETURN(const HandedOver handed_over, FromWire(message_.handed_over()));
        keeper_.OnHandedOver(*node_, link_.get(), handed_over);
        return absl::OkStatus();
      }
      case v1::WorkerMessage::kReceipt: {
        ASSIGN_OR_RETURN(const SignedReceipt receipt, FromWire(*node_, message_.receipt()));
        v1::CoordinatorMessage answer;
        *answer.mutable_receipt_answer() = ToWire(receipts_.Take(receipt, key_));
        link_->Send(std::move(answer));
        return absl::OkStatus();
      }
      case v1::WorkerMessage::kHeldLedgerHead: {
        ASSIGN_OR_RETURN(const HeldLedgerHead held, FromWire(message_.held_ledger_head()));
        if (heads_ != nullptr) heads_->OnHeld(*node_, link_, held);
        return absl::OkStatus();
      }
      case v1::WorkerMessage::kLeaving:
        keeper_.OnLeaving(*node_, link_.get());
        return absl::OkStatus();
      default:
        return absl::InvalidArgumentError("malformed message: not one that a worker sends now");
    }
  }

  absl::Status TakeHello() {
    if (!message_.has_hello()) {
      return absl::InvalidArgumentError("malformed message: a control stream begins with hello");
    }
    ASSIGN_OR_RETURN(Hello hello, FromWire(message_.hello()));
    if (hello.numerics_id != kNumericsId) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the worker computes by numerics ", hello.numerics_id, " and the coordinator by ",
          kNumericsId, ": their results would differ; run the same version of eFedLLM on both"));
    }
    if (NodeOfPublicKey(hello.public_key) != *node_) {
      return absl::PermissionDeniedError(
          "the worker's public key is not that of the node that it says it is");
    }
    key_ = hello.public_key;
    hello.owner = enroller_.OwnerOf(*node_, hello.owner);
    ASSIGN_OR_RETURN(hello.hop_address, CompleteHopAddress(hello.hop_address, peer_));
    v1::CoordinatorMessage welcome;
    welcome.mutable_welcome()->set_node(node_->v);
    if (want_receipts_) {
      const PublicKey& own_key = receipts_.public_key();
      welcome.mutable_welcome()->set_coordinator_key(std::string(own_key.begin(), own_key.end()));
    }
    welcome.mutable_welcome()->set_heartbeat_millis(
        static_cast<uint32_t>(absl::ToInt64Milliseconds(keeper_.heartbeat())));
    link_->Send(std::move(welcome));
    RETURN_IF_ERROR(keeper_.Attach(*node_, hello, link_));
    attached_ = true;
    return absl::OkStatus();
  }

  // With each heartbeat, so that a worker that says nothing is not written to. One at a time: an
  // answer may take longer than a heartbeat.
  void SendPing() {
    if (ping_sent_) return;
    v1::CoordinatorMessage message;
    message.mutable_ping()->set_id(++ping_);
    ping_sent_ = SteadyNow();
    link_->Send(std::move(message));
  }
  void TakePong(const Pong& pong) {
    if (pong.id != ping_ || !ping_sent_) return;
    keeper_.OnPong(*node_, link_.get(), *std::exchange(ping_sent_, std::nullopt), SteadyNow(),
                   pong.worker_time);
  }
  void TakeLinkReport(const LinkReport& report) {
    if (!report.link.reachable) {
      spdlog::info("{} can't reach {}: {}", NodeName(*node_), NodeName(report.link.to),
                   report.message);
    }
    keeper_.OnLink(*node_, link_.get(), report.link);
  }

  const absl::StatusOr<NodeId> node_;
  const std::string peer_;
  EpochKeeper& keeper_;
  Enroller& enroller_;
  ReceiptChecker& receipts_;
  const bool want_receipts_;
  LedgerHeadPublisher* const heads_;
  PublicKey key_ = {};  // the worker's
  const std::shared_ptr<ControlLink> link_;
  bool attached_ = false;
  uint64_t ping_ = 0;                    // the last
  std::optional<absl::Time> ping_sent_;  // none: it was answered
  v1::WorkerMessage message_;
};

}  // namespace

ControlReactor* ControlService::Attach(grpc::CallbackServerContext* context) {
  return new ControlStream(context, transport_.PeerNode(*context), keeper_, enroller_, receipts_,
                           want_receipts_, heads_);
}

grpc::ServerWriteReactor<v1::TensorChunk>* ControlService::FetchTensor(
    grpc::CallbackServerContext* context, const v1::FetchTensorRequest* request) {
  const absl::StatusOr<NodeId> node = transport_.PeerNode(*context);
  if (!node.ok()) return WeightServer::Refuse(node.status());
  return weights_.Fetch(*request);
}

grpc::ServerUnaryReactor* ControlService::Renew(grpc::CallbackServerContext* context,
                                                const v1::RenewRequest* request,
                                                v1::EnrolReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::StatusOr<NodeId> node = transport_.PeerNode(*context);
  const absl::StatusOr<std::string> certificate =
      node.ok() ? enroller_.Renew(*node, request->certificate_request()) : node.status();
  if (certificate.ok()) reply->set_certificate(*certificate);
  reactor->Finish(ToGrpc(certificate.status()));
  return reactor;
}

}  // namespace efedllm
