#include "faultsim/sim_worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "wire/frame_epoch.h"
#include "wire/link_wire.h"

namespace efedllm::faultsim {
namespace {

// Of a computed row in one layer, beside what every step takes.
constexpr absl::Duration kStepTime = absl::Microseconds(300);
constexpr absl::Duration kLeavePatience = absl::Seconds(10);
constexpr absl::Duration kRowTime = absl::Microseconds(30);

}  // namespace

SimWorker::SimWorker(World& world, NodeId node, const NodeProfile& profile)
    : world_(world), profile_(profile) {
  process_.node = node;
  process_.name = absl::StrCat("worker ", node.v);
  world_.workers[node] = &process_;
  world_.network.Listen(process_, [this](const auto& connection) { return Accept(connection); });
}

void SimWorker::Start() {
  if (life_ != nullptr) return;
  process_.up = true;
  ++process_.life;
  process_.stopped_until = process_.busy_until = absl::ZeroDuration();
  life_ = std::make_unique<Life>(*this);
  world_.Say(process_.name, "starts");
  Attach();
}

void SimWorker::Crash(bool silent) {
  if (life_ == nullptr) return;
  world_.Say(process_.name, silent ? "loses power" : "is killed");
  world_.network.OnCrash(process_, silent);
  process_.up = false;
  life_.reset();
}

void SimWorker::Leave() {
  if (life_ == nullptr || !life_->welcomed || life_->leaving) return;
  life_->leaving = true;
  world_.Say(process_.name, "asks to leave");
  v1::WorkerMessage message;
  message.mutable_leaving();
  Send(message);
  if (!process_.up) return;
  world_.loop.After(kLeavePatience, &process_, [this] { EndSession("nobody lets it go"); });
}

void SimWorker::AfterSlotsChanged() {
  (void)life_->slots.TakeEnded();
  life_->receiver.SetUpstreams(life_->slots.upstreams());
  Pump();
}

bool SimWorker::Accept(const Network::ConnectionPtr& connection) {
  if (life_ == nullptr) return false;
  switch (connection->kind()) {
    case ConnectionKind::kHop:
      life_->receiver.Accept(connection);
      return true;
    case ConnectionKind::kEcho:
      connection->set_handler(Connection::kListener, {[connection](const std::string& bytes) {
                                                        connection->Send(Connection::kListener,
                                                                         bytes);
                                                      },
                                                      nullptr});
      return true;
    case ConnectionKind::kKv:
      connection->set_handler(
          Connection::kListener,
          {[this, connection, next_epoch = std::make_shared<std::optional<Epoch>>()](
               const std::string& bytes) { OnKv(connection, *next_epoch, bytes); },
           nullptr});
      return true;
    case ConnectionKind::kControl:
      break;
  }
  return false;
}

void SimWorker::OnFrame(HopFrame frame) {
  life_->counters.bytes_in += frame.bytes.Length();
  life_->frames.push_back(std::move(frame));
  Pump();
}

// Frames, one after the other, as long as nothing is computed.
void SimWorker::Pump() {
  while (!life_->computing && !life_->frames.empty()) {
    HopFrame hop = std::move(life_->frames.front());
    life_->frames.pop_front();
    MutateArrival(hop);
    const std::shared_ptr<HeldStage> stage = life_->slots.StageOf(hop.peer, hop.bytes);
    if (stage == nullptr) continue;
    auto pass = std::make_shared<PassingFrame>();
    const absl::Status read = stage->Read(hop, *pass);
    if (!read.ok()) {
      Halt(stage, StageFault::kUpstream, read);
      continue;
    }
    const bool begins = stage == life_->slots.prepared();
    if (!life_->slots.Enter(stage)) continue;
    if (begins) {
      world_.Say(process_.name, "runs epoch ", stage->epoch().v);
      life_->counters = StageCounters();
      life_->counters.epoch = stage->epoch();
      life_->counters.kv_tokens_total = stage->executor()->kv_tokens_total();
    }
    MutateStep(*pass);
    const size_t rows = pass->frame.step.tokens();
    const absl::Status computed = stage->Compute(*pass);
    if (!computed.ok()) {
      Halt(stage, StageFault::kUpstream, computed);
      continue;
    }
    MutateResult(*pass, *stage);
    life_->computing = true;
    const absl::Duration took =
        process_.slowness *
        (kStepTime + kRowTime * static_cast<int64_t>(rows * stage->assignment().layers.size()));
    world_.loop.After(took, &process_, [this, stage, pass] { Finish(stage, pass); });
    if (begins) AfterSlotsChanged();
  }
}

void SimWorker::Finish(const std::shared_ptr<HeldStage>& stage,
                       const std::shared_ptr<PassingFrame>& pass) {
  life_->computing = false;
  if (stage->running()) {
    pass->computed = life_->clock.Now();
    ++life_->counters.steps;
    life_->counters.tokens += pass->frame.step.tokens();
    life_->counters.compute_micros += TimingMicros(pass->computed - pass->computing);
    const grpc::ByteBuffer out = stage->Write(*pass);
    life_->counters.bytes_out += out.Length();
    const absl::Status sent = stage->downstream().Send(out, absl::Seconds(1));
    if (!process_.up) return;  // it died while it sent
    if (!sent.ok()) Halt(stage, StageFault::kDownstream, sent);
  }
  Pump();
}

void SimWorker::Halt(const std::shared_ptr<HeldStage>& stage, StageFault fault,
                     const absl::Status& why) {
  if (!life_->slots.Halt(*stage)) return;
  world_.Say(process_.name, "halts its stage of epoch ", stage->epoch().v, ": ", why.message());
  ReportFailure(stage->epoch(), fault, std::string(why.message()));
  AfterSlotsChanged();
}

}  // namespace efedllm::faultsim
