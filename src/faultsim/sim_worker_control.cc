// A simulated worker's control stream, and what it is told to hold.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "faultsim/sim_worker.h"
#include "model/stage_executor.h"
#include "wire/link_wire.h"

namespace efedllm::faultsim {
namespace {

constexpr absl::Duration kMostBackoff = absl::Milliseconds(800);
constexpr absl::Duration kNoPing = absl::Seconds(5);  // then the session is over
constexpr absl::Duration kEchoPatience = absl::Seconds(1);

}  // namespace

void SimWorker::Attach() {
  Life& life = *life_;
  const uint64_t session = ++life.session;
  life.welcomed = false;
  life.last_ping = world_.loop.now();
  life.control = world_.network.Dial(process_, world_.coordinator, ConnectionKind::kControl);
  life.control->set_handler(Connection::kDialler, {[this, session](const std::string& bytes) {
                                                     if (life_->session == session)
                                                       OnControl(bytes);
                                                   },
                                                   [this, session](const absl::Status& why) {
                                                     if (life_->session == session)
                                                       EndSession(std::string(why.message()));
                                                   }});
  Hello hello;
  hello.engine_version = "simulated";
  hello.name = absl::StrCat("w", process_.node.v);
  hello.profile = profile_;
  hello.hop_address = absl::StrCat("10.0.0.", process_.node.v, ":7000");
  v1::WorkerMessage message;
  *message.mutable_hello() = ToWire(hello);
  Send(message);
  world_.loop.After(kNoPing, &process_, [this, session] { CheckPings(session); });
}

void SimWorker::CheckPings(uint64_t session) {
  if (life_->session != session) return;
  const VirtualTime until = life_->last_ping + kNoPing;
  if (world_.loop.now() >= until) return EndSession("no ping came");
  world_.loop.At(until, &process_, [this, session] { CheckPings(session); });
}

// What it holds it lets go of, as the daemon does.
void SimWorker::EndSession(const std::string& why) {
  Life& life = *life_;
  world_.Say(process_.name, "lost the coordinator: ", why);
  life.control->Close(Connection::kDialler, absl::OkStatus());
  ++life.session;
  ++life.assignments;
  life.slots.Release();
  AfterSlotsChanged();
  if (life.leaving) return Restart();
  const absl::Duration wait = life.backoff * (0.5 + world_.random.Uniform());
  life.backoff = std::min(2 * life.backoff, kMostBackoff);
  world_.loop.After(wait, &process_, [this] { Attach(); });
}

void SimWorker::Restart() {
  world_.Say(process_.name, "has left");
  world_.network.OnCrash(process_, /*silent=*/false);
  process_.up = false;
  life_.reset();
  world_.loop.After(absl::Milliseconds(100), nullptr, [this] { Start(); });
}

void SimWorker::Send(const v1::WorkerMessage& message) {
  life_->control->Send(Connection::kDialler, message.SerializeAsString());
}

void SimWorker::OnControl(const std::string& bytes) {
  v1::CoordinatorMessage message;
  if (!message.ParseFromString(bytes)) return EndSession("a message that nobody can read");
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kWelcome:
      life_->welcomed = true;
      life_->backoff = absl::Milliseconds(50);
      life_->heartbeat = absl::Milliseconds(message.welcome().heartbeat_millis());
      return Heartbeat(life_->session);
    case v1::CoordinatorMessage::kAssignment:
      return OnAssignment(message.assignment());
    case v1::CoordinatorMessage::kRelease:
      return OnRelease(Epoch{message.release().epoch()});
    case v1::CoordinatorMessage::kPing: {
      life_->last_ping = world_.loop.now();
      v1::WorkerMessage pong;
      *pong.mutable_pong() = ToWire(Pong{message.ping().id(), life_->clock.Now()});
      return Send(pong);
    }
    case v1::CoordinatorMessage::kHandOver: {
      const absl::StatusOr<HandOver> hand_over = FromWire(message.hand_over());
      if (!hand_over.ok()) return EndSession(std::string(hand_over.status().message()));
      return OnHandOver(*hand_over);
    }
    case v1::CoordinatorMessage::kMeasureLinks:   // links of this world need no measuring
    case v1::CoordinatorMessage::kPrefetch:       // weights take no time here
    case v1::CoordinatorMessage::kReceiptAnswer:  // nor does this one give receipts
    case v1::CoordinatorMessage::kLedgerHead:     // or look after a ledger
      return;
    case v1::CoordinatorMessage::MESSAGE_NOT_SET:
      return EndSession("a message that nobody can read");
  }
}

void SimWorker::Heartbeat(uint64_t session) {
  if (life_->session != session) return;
  v1::WorkerMessage message;
  StageCounters counters = life_->counters;
  if (const auto& running = life_->slots.running(); running != nullptr) {
    counters.sequences = running->executor()->sequences();
    counters.kv_tokens_used = running->executor()->kv_tokens_used();
  } else {
    counters.epoch = Epoch{0};
  }
  *message.mutable_heartbeat() = ToWire(counters);
  Send(message);
  if (!process_.up) return;  // it died while it sent
  world_.loop.After(life_->heartbeat, &process_, [this, session] { Heartbeat(session); });
}

void SimWorker::Report(const StageReport& report) {
  v1::WorkerMessage message;
  *message.mutable_stage_status() = ToWire(report);
  Send(message);
}

void SimWorker::ReportFailure(Epoch epoch, StageFault fault, const std::string& why) {
  StageReport report;
  report.epoch = epoch;
  report.state = StageState::kFailed;
  report.fault = fault;
  report.message = why;
  Report(report);
}

void SimWorker::OnAssignment(const v1::Assignment& message) {
  const uint64_t job = ++life_->assignments;
  absl::StatusOr<Assignment> assignment = FromWire(message);
  if (!assignment.ok()) {
    return ReportFailure(Epoch{message.epoch()}, StageFault::kSelf,
                         std::string(assignment.status().message()));
  }
  world_.Say(process_.name, "is assigned layers [", assignment->layers.first, ", ",
             assignment->layers.last, ") of epoch ", assignment->epoch.v,
             assignment->continues.v == 0
                 ? ""
                 : absl::StrCat(", to go on with epoch ", assignment->continues.v));
  StageReport report;
  report.epoch = assignment->epoch;
  report.bytes_total = 1;
  Report(report);
  if (!process_.up) return;
  const absl::Duration fetching =
      process_.slowness *
      absl::Microseconds(1000 + static_cast<int64_t>(world_.random.Below(20'000)));
  world_.loop.After(fetching, &process_, [this, assignment = *std::move(assignment), job] {
    if (life_->assignments == job) CheckDownstream(assignment, job);
  });
}

// Its downstream has to answer before the stage is ready.
void SimWorker::CheckDownstream(const Assignment& assignment, uint64_t job) {
  Process* downstream = world_.Find(assignment.downstream);
  if (downstream == nullptr) {
    return ReportFailure(assignment.epoch, StageFault::kDownstream, "no such node");
  }
  const auto echo = world_.network.Dial(process_, *downstream, ConnectionKind::kEcho);
  const auto answered = std::make_shared<bool>(false);
  const auto fail = [this, assignment, job, answered, echo](const std::string& why) {
    if (std::exchange(*answered, true) || life_->assignments != job) return;
    echo->Close(Connection::kDialler, absl::OkStatus());
    ReportFailure(assignment.epoch, StageFault::kDownstream, why);
  };
  echo->set_handler(Connection::kDialler,
                    {[this, assignment, job, answered, echo](const std::string&) {
                       if (std::exchange(*answered, true)) return;
                       echo->Close(Connection::kDialler, absl::OkStatus());
                       if (life_->assignments == job) BringUp(assignment);
                     },
                     [fail](const absl::Status& why) { fail(std::string(why.message())); }});
  echo->Send(Connection::kDialler, "echo");
  if (!process_.up) return;
  world_.loop.After(kEchoPatience, &process_, [fail] { fail("the next node does not answer"); });
}

void SimWorker::BringUp(const Assignment& assignment) {
  if (!fail_next_stage_.empty()) {
    return ReportFailure(assignment.epoch, StageFault::kSelf,
                         std::exchange(fail_next_stage_, std::string()));
  }
  const bool kept = life_->slots.CanContinue(assignment);
  std::shared_ptr<StageExecutor> executor;
  if (!kept) {
    if (life_->slots.BytesBeside(assignment) > profile_.memory_bytes) life_->slots.DropRunning();
    StageOptions options;
    options.config = assignment.config;
    options.layers = assignment.layers;
    options.kv_tokens = assignment.kv_tokens;
    options.kv_type = assignment.kv_type;
    options.limits = assignment.limits;
    options.keep_outputs = assignment.keep_outputs;
    auto created = StageExecutor::Create(options, world_.model.Tensors(assignment.layers),
                                         world_.model.compute());
    const absl::Status tested = created.ok() ? (*created)->SelfTest() : created.status();
    if (!tested.ok()) {
      return ReportFailure(assignment.epoch, StageFault::kSelf, std::string(tested.message()));
    }
    executor = *std::move(created);
  }
  Process* downstream = world_.Find(assignment.downstream);
  life_->slots.Prepare(std::make_shared<HeldStage>(
      assignment, process_.node, std::move(executor), StageBases(),
      std::make_unique<SimFrameSender>(world_.network, process_, *downstream), life_->clock));
  const bool lie = world_.Is(Mutation::kWrongLineage) && assignment.continues.v != 0;
  ReportReady(assignment.epoch, kept || lie);
  if (process_.up) AfterSlotsChanged();
}

void SimWorker::ReportReady(Epoch epoch, bool kept) {
  world_.Say(process_.name, "is ready for epoch ", epoch.v, kept ? " with its KV" : "");
  StageReport report;
  report.epoch = epoch;
  report.state = StageState::kReady;
  report.bytes_held = report.bytes_total = 1;
  report.kept = kept;
  Report(report);
}

void SimWorker::OnRelease(Epoch epoch) {
  const StageSlots& slots = life_->slots;
  const Epoch held = slots.prepared() != nullptr  ? slots.prepared()->epoch()
                     : slots.running() != nullptr ? slots.running()->epoch()
                                                  : Epoch{0};
  if (!life_->leaving && epoch < held) return;  // of an earlier plan
  world_.Say(process_.name, "is released");
  ++life_->assignments;
  life_->slots.Release();
  AfterSlotsChanged();
  if (life_->leaving) EndSession("it was released");
}

}  // namespace efedllm::faultsim
