// One attachment to the coordinator: the control stream from hello to its end.
#ifndef EFEDLLM_WORKER_CONTROL_SESSION_H_
#define EFEDLLM_WORKER_CONTROL_SESSION_H_

#include <grpcpp/client_context.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/bounded_queue.h"
#include "common/clock.h"
#include "common/signing.h"
#include "net/credentials.h"
#include "net/link_prober.h"
#include "wire/cluster_service.h"
#include "wire/cluster_wire.h"
#include "wire/handover_wire.h"
#include "wire/ledger_wire.h"
#include "wire/link_wire.h"
#include "worker/kept_rows.h"
#include "worker/ledger_heads.h"
#include "worker/receipt_writer.h"
#include "worker/stage_keeper.h"
#include "worker/stage_runner.h"

namespace efedllm {

struct ControlOptions {
  Hello hello;
  std::string coordinator;  // HOST:PORT, for the link to it
  absl::Duration welcome_timeout = absl::Seconds(20);
  // For the coordinator to plan without us, and for our layers to be handed over.
  absl::Duration leave_timeout = absl::Seconds(30);
  // The coordinator pings several times a second; when it says nothing for so long, it is gone, or
  // the way from it.
  absl::Duration silence_timeout = absl::Seconds(5);
  std::function<bool()> stop_requested;
  std::function<bool()> renewed;  // true: attach anew, with the new certificate
  std::function<void()> on_welcome;
};

// What the coordinator's messages are for. All borrowed.
struct ControlledParts {
  StageKeeper& keeper;
  const StageRunner& runner;
  LinkProber& prober;
  KeptRows* rows = nullptr;  // null, all: no receipts
  ReceiptWriter* receipts = nullptr;
  HeldLedgerHeads* heads = nullptr;
};

// Run is called once. The Post... may be called from any thread, before, during and after Run.
class ControlSession {
 public:
  // stub, transport and clock are borrowed and outlive this.
  ControlSession(const ControlOptions& options, v1::Cluster::StubInterface& stub,
                 const Transport& transport, const Clock& clock);

  // Until the stream ends or there is a reason to end it. OK: the worker has left, or has a new
  // certificate; else why the stream ended.
  absl::Status Run(const ControlledParts& parts);

  // Sends the report, if it is of the stage that was assigned last, or tells that one failed which
  // may still run beside that.
  void PostReport(const StageReport& report);
  void PostHandedOver(const HandedOver& handed_over);
  // What is behind too much else gets lost: the coordinator will ask again.
  void PostLink(const LinkReport& report);

  // After Run:
  bool welcomed() const { return welcomed_; }
  bool left() const { return leaving_; }

 private:
  struct StreamEnded {};
  using Event =
      std::variant<v1::CoordinatorMessage, StageReport, HandedOver, LinkReport, StreamEnded>;
  using Stream = grpc::ClientReaderWriterInterface<v1::WorkerMessage, v1::CoordinatorMessage>;

  // Each returns false when the session is over.
  bool Loop(const ControlledParts& parts);
  bool OnEvent(const Event& event, const ControlledParts& parts);
  bool OnMessage(const v1::CoordinatorMessage& message, const ControlledParts& parts);
  bool OnPing(const v1::Ping& ping);
  bool OnMeasureLinks(const v1::MeasureLinks& message, LinkProber& prober);
  bool OnHandOver(const v1::HandOver& message, StageKeeper& keeper);
  bool OnPrefetch(const v1::Prefetch& message, StageKeeper& keeper);
  bool OnReceiptAnswer(const v1::ReceiptAnswer& message, const ControlledParts& parts);
  bool OnLedgerHead(const v1::LedgerHeadOffer& message, const ControlledParts& parts);
  bool OnTime(const ControlledParts& parts);
  bool SendReceipts(const ControlledParts& parts);
  void SayFarewell(const ControlledParts& parts);

  bool OnWelcome(const v1::Welcome& welcome, const ControlledParts& parts);
  void OnAssignment(const v1::Assignment& message, StageKeeper& keeper);
  bool SendReport(const StageReport& report);
  bool SendHeartbeat(const StageRunner& runner);
  bool SendHeldHead(HeldLedgerHeads& heads, std::string refusal);
  bool SendLeaving();

  const ControlOptions options_;
  v1::Cluster::StubInterface& stub_;
  const Transport& transport_;
  const Clock& clock_;
  BoundedQueue<Event> events_;

  // Of the thread that calls Run.
  std::unique_ptr<Stream> stream_;
  absl::Status problem_;  // why we end the session ourselves
  bool welcomed_ = false;
  bool leaving_ = false;
  bool released_ = false;  // after that; the last receipts are on their way
  bool renewed_ = false;
  Epoch epoch_;   // of the last assignment, if no release came since
  Epoch newest_;  // of the last assignment: a late one does not count
  PublicKey coordinator_key_ = {};
  absl::Duration heartbeat_interval_ = absl::Seconds(1);
  absl::Time welcome_deadline_;
  absl::Time heard_ = absl::InfinitePast();  // the last message of the coordinator
  absl::Time leave_deadline_ = absl::InfiniteFuture();
  absl::Time next_heartbeat_ = absl::InfiniteFuture();
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_CONTROL_SESSION_H_
