#include "worker/control_session.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "wire/receipt_wire.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

constexpr size_t kMaxEvents = 256;
constexpr absl::Duration kPushTimeout = absl::Seconds(5);
// Until a request to stop is seen, or a receipt that is due.
constexpr absl::Duration kMostWait = absl::Milliseconds(50);
constexpr absl::Duration kFarewell = absl::Seconds(2);
constexpr int64_t kLeastHeartbeatMillis = 50;
constexpr int64_t kMostHeartbeatMillis = 30'000;
constexpr size_t kMostErrorBytes = 2000;  // with the paths that say what to do

}  // namespace

ControlSession::ControlSession(const ControlOptions& options, v1::Cluster::StubInterface& stub,
                               const Transport& transport, const Clock& clock)
    : options_(options), stub_(stub), transport_(transport), clock_(clock), events_(kMaxEvents) {}

void ControlSession::PostReport(const StageReport& report) {
  Event event = report;
  // Progress may get lost, the last word may not.
  const bool progress = report.state == StageState::kFetching;
  const bool posted =
      progress ? events_.TryPush(std::move(event)) : events_.Push(std::move(event), kPushTimeout);
  if (!posted && !progress && !events_.closed()) {
    spdlog::error("a report to the coordinator got lost: the control stream is stuck");
  }
}

void ControlSession::PostHandedOver(const HandedOver& handed_over) {
  Event event = handed_over;
  if (events_.Push(std::move(event), kPushTimeout) || events_.closed()) return;
  spdlog::error("the end of a hand-over got lost: the control stream is stuck");
}

void ControlSession::PostLink(const LinkReport& report) {
  Event event = report;
  (void)events_.TryPush(std::move(event));
}

absl::Status ControlSession::Run(const ControlledParts& parts) {
  grpc::ClientContext context;
  transport_.Prepare(context);
  stream_ = stub_.Attach(&context);
  welcome_deadline_ = clock_.Now() + options_.welcome_timeout;
  std::thread reader([this] {
    v1::CoordinatorMessage message;
    // To its end, even when nobody takes it any more: the status comes behind all messages, and
    // Finish would wait for it for ever.
    while (stream_->Read(&message)) {
      (void)events_.Push(std::move(message), absl::InfiniteDuration());
      message.Clear();
    }
    (void)events_.Push(StreamEnded(), absl::InfiniteDuration());
  });

  v1::WorkerMessage hello;
  *hello.mutable_hello() = ToWire(options_.hello);
  // Where a write fails the stream has ended, and its status says why.
  if (stream_->Write(hello)) {
    while (Loop(parts)) {
    }
  }
  events_.Close();
  const bool ours = leaving_ || renewed_ || !problem_.ok();
  if (ours) {
    stream_->WritesDone();
    context.TryCancel();
  }
  reader.join();
  const absl::Status ended = FromGrpc(stream_->Finish());
  if (!problem_.ok()) return problem_;
  if (ours) return absl::OkStatus();
  return ended.ok() ? absl::UnavailableError("the coordinator ended the control stream") : ended;
}

bool ControlSession::Loop(const ControlledParts& parts) {
  const absl::Duration wait =
      std::clamp(next_heartbeat_ - clock_.Now(), absl::ZeroDuration(), kMostWait);
  const std::optional<Event> event = events_.Pop(wait);
  if (event && !OnEvent(*event, parts)) return false;
  return OnTime(parts);
}

bool ControlSession::OnEvent(const Event& event, const ControlledParts& parts) {
  if (const auto* message = std::get_if<v1::CoordinatorMessage>(&event)) {
    return OnMessage(*message, parts);
  }
  if (const auto* report = std::get_if<StageReport>(&event)) return SendReport(*report);
  if (const auto* handed_over = std::get_if<HandedOver>(&event)) {
    v1::WorkerMessage message;
    *message.mutable_handed_over() = ToWire(*handed_over);
    return stream_->Write(message);
  }
  if (const auto* report = std::get_if<LinkReport>(&event)) {
    v1::WorkerMessage message;
    *message.mutable_link_report() = ToWire(*report);
    return stream_->Write(message);
  }
  return false;
}

bool ControlSession::OnMessage(const v1::CoordinatorMessage& message,
                               const ControlledParts& parts) {
  heard_ = clock_.Now();
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kWelcome:
      return OnWelcome(message.welcome(), parts);
    case v1::CoordinatorMessage::kAssignment:
      OnAssignment(message.assignment(), parts.keeper);
      return true;
    case v1::CoordinatorMessage::kRelease:
      if (!leaving_ && message.release().epoch() < epoch_.v) return true;  // of an earlier plan
      epoch_ = Epoch{0};
      parts.keeper.Release();
      if (leaving_) SayFarewell(parts);
      return !leaving_ || parts.receipts != nullptr;
    case v1::CoordinatorMessage::kPing:
      return OnPing(message.ping());
    case v1::CoordinatorMessage::kMeasureLinks:
      return OnMeasureLinks(message.measure_links(), parts.prober);
    case v1::CoordinatorMessage::kHandOver:
      return OnHandOver(message.hand_over(), parts.keeper);
    case v1::CoordinatorMessage::kPrefetch:
      return OnPrefetch(message.prefetch(), parts.keeper);
    case v1::CoordinatorMessage::kReceiptAnswer:
      return OnReceiptAnswer(message.receipt_answer(), parts);
    case v1::CoordinatorMessage::kLedgerHead:
      return OnLedgerHead(message.ledger_head(), parts);
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      break;
  }
  problem_ = absl::UnavailableError("the coordinator sent a message that this version can't read");
  return false;
}

bool ControlSession::OnPing(const v1::Ping& ping) {
  v1::WorkerMessage message;
  *message.mutable_pong() = ToWire(Pong{ping.id(), clock_.Now()});
  return stream_->Write(message);
}

bool ControlSession::OnMeasureLinks(const v1::MeasureLinks& message, LinkProber& prober) {
  const absl::StatusOr<MeasureLinks> measure = FromWire(message);
  if (!measure.ok()) {
    problem_ = measure.status();
    return false;
  }
  std::vector<LinkProber::Target> targets;
  for (const LinkTarget& target : measure->targets) {
    targets.push_back(
        {target.node, target.address.empty() ? options_.coordinator : target.address});
  }
  prober.Measure(targets);
  return true;
}

bool ControlSession::OnHandOver(const v1::HandOver& message, StageKeeper& keeper) {
  absl::StatusOr<HandOver> hand_over = FromWire(message);
  if (hand_over.ok()) {
    keeper.HandOverKv(*std::move(hand_over));
    return true;
  }
  problem_ = hand_over.status();
  return false;
}

bool ControlSession::OnPrefetch(const v1::Prefetch& message, StageKeeper& keeper) {
  absl::StatusOr<Prefetch> prefetch = FromWire(message);
  if (prefetch.ok()) {
    if (!leaving_) keeper.PrefetchWeights(*std::move(prefetch));
    return true;
  }
  problem_ = prefetch.status();
  return false;
}

bool ControlSession::OnReceiptAnswer(const v1::ReceiptAnswer& message,
                                     const ControlledParts& parts) {
  const absl::StatusOr<ReceiptAnswer> answer = FromWire(message);
  if (!answer.ok()) {
    problem_ = answer.status();
    return false;
  }
  if (parts.receipts != nullptr) parts.receipts->TakeAnswer(*answer, coordinator_key_);
  return true;
}

bool ControlSession::OnLedgerHead(const v1::LedgerHeadOffer& message,
                                  const ControlledParts& parts) {
  const absl::StatusOr<LedgerHeadOffer> offer = FromWire(message);
  if (!offer.ok()) {
    problem_ = offer.status();
    return false;
  }
  if (parts.heads == nullptr) return true;
  const absl::Status taken = parts.heads->Take(coordinator_key_, *offer);
  if (absl::IsFailedPrecondition(taken)) {
    spdlog::error("{}. {}", Printable(taken.message(), kMostErrorBytes),
                  Printable(parts.heads->WhatToDo(coordinator_key_), kMostErrorBytes));
  } else if (!taken.ok()) {
    spdlog::error("{}", Printable(taken.message(), kMostErrorBytes));
  }
  // What this machine's disk did not take is no word about the coordinator.
  const bool refused = absl::IsFailedPrecondition(taken) || absl::IsInvalidArgument(taken);
  return SendHeldHead(*parts.heads, refused ? std::string(taken.message()) : "");
}

bool ControlSession::SendHeldHead(HeldLedgerHeads& heads, std::string refusal) {
  HeldLedgerHead held;
  held.refusal = std::move(refusal);
  absl::StatusOr<std::optional<SignedLedgerHead>> newest = heads.Newest(coordinator_key_);
  if (newest.ok()) {
    held.head = *newest;
  } else {
    spdlog::error("{}", Printable(newest.status().message(), kMostErrorBytes));
    held.refusal = std::string(newest.status().message());
  }
  v1::WorkerMessage message;
  *message.mutable_held_ledger_head() = ToWire(held);
  return stream_->Write(message);
}

bool ControlSession::OnWelcome(const v1::Welcome& welcome, const ControlledParts& parts) {
  heartbeat_interval_ = absl::Milliseconds(
      std::clamp<int64_t>(welcome.heartbeat_millis(), kLeastHeartbeatMillis, kMostHeartbeatMillis));
  next_heartbeat_ = clock_.Now();
  const bool wanted = welcome.coordinator_key().size() == coordinator_key_.size();
  if (parts.receipts != nullptr) parts.receipts->SetWanted(wanted);
  if (wanted) {
    std::copy(welcome.coordinator_key().begin(), welcome.coordinator_key().end(),
              coordinator_key_.begin());
  }
  if (!welcomed_ && parts.receipts != nullptr) parts.receipts->Resend();
  if (!std::exchange(welcomed_, true)) options_.on_welcome();
  return !wanted || parts.heads == nullptr || SendHeldHead(*parts.heads, "");
}

void ControlSession::OnAssignment(const v1::Assignment& message, StageKeeper& keeper) {
  if (message.epoch() <= newest_.v) return;  // late, or twice
  absl::StatusOr<Assignment> assignment = FromWire(message);
  epoch_ = newest_ = Epoch{message.epoch()};
  if (assignment.ok()) {
    if (!leaving_) keeper.Assign(*std::move(assignment));
    return;
  }
  StageReport report;
  report.epoch = epoch_;
  report.state = StageState::kFailed;
  report.message = std::string(assignment.status().message());
  SendReport(report);
}

bool ControlSession::SendReport(const StageReport& report) {
  const bool may_run = report.state == StageState::kFailed && report.epoch < epoch_;
  if (report.epoch != epoch_ && !may_run) return true;
  v1::WorkerMessage message;
  *message.mutable_stage_status() = ToWire(report);
  return stream_->Write(message);
}

bool ControlSession::SendHeartbeat(const StageRunner& runner) {
  v1::WorkerMessage message;
  *message.mutable_heartbeat() = ToWire(runner.counters());
  next_heartbeat_ = clock_.Now() + heartbeat_interval_;
  return stream_->Write(message);
}

bool ControlSession::SendLeaving() {
  leaving_ = true;
  if (!welcomed_) return false;
  spdlog::info("leaving: waiting for the coordinator to plan without this node");
  leave_deadline_ = clock_.Now() + options_.leave_timeout;
  v1::WorkerMessage message;
  message.mutable_leaving();
  return stream_->Write(message);
}

bool ControlSession::SendReceipts(const ControlledParts& parts) {
  if (!welcomed_ || parts.receipts == nullptr) return true;
  parts.rows->Tend();
  while (const std::optional<SignedReceipt> receipt = parts.receipts->Next()) {
    v1::WorkerMessage message;
    *message.mutable_receipt() = ToWire(*receipt);
    if (!stream_->Write(message)) return false;
  }
  return true;
}

// What was computed last is still to be told, and answered, before the node goes.
void ControlSession::SayFarewell(const ControlledParts& parts) {
  released_ = true;
  if (parts.receipts != nullptr) parts.receipts->Hurry();
  leave_deadline_ = std::min(leave_deadline_, clock_.Now() + kFarewell);
}

bool ControlSession::OnTime(const ControlledParts& parts) {
  const absl::Time now = clock_.Now();
  if (!welcomed_ && now > welcome_deadline_) {
    problem_ = absl::DeadlineExceededError("the coordinator did not answer");
    return false;
  }
  if (welcomed_ && now - heard_ > options_.silence_timeout) {
    problem_ = absl::UnavailableError(absl::StrCat("heard nothing of the coordinator for ",
                                                   absl::FormatDuration(options_.silence_timeout)));
    return false;
  }
  if (released_ && (now > leave_deadline_ ||
                    (parts.runner.counters().epoch == Epoch{0} && parts.receipts->idle()))) {
    return false;
  }
  if (now > leave_deadline_) {
    spdlog::warn("the coordinator did not let go of this node in time");
    return false;
  }
  if (!leaving_ && options_.stop_requested() && !SendLeaving()) return false;
  if (welcomed_ && !leaving_ && options_.renewed()) {
    renewed_ = true;
    return false;
  }
  return SendReceipts(parts) && (now < next_heartbeat_ || SendHeartbeat(parts.runner));
}

}  // namespace efedllm
