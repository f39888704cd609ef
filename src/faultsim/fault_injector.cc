#include "faultsim/fault_injector.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "faultsim/frame_numbers.h"

namespace efedllm::faultsim {
namespace {

constexpr StepId kLastCopied{24};

constexpr uint64_t kFaultKinds = static_cast<uint64_t>(Fault::kCount);

// Those that meet a message, an event.
bool OfMessages(Fault fault) {
  return fault <= Fault::kReset || fault == Fault::kKill || fault == Fault::kPowerLoss;
}
bool OfEvents(Fault fault) {
  return fault > Fault::kReset && fault != Fault::kDiskCrash && fault != Fault::kDiskError &&
         fault != Fault::kSlowDisk;
}

}  // namespace

absl::string_view FaultName(Fault fault) {
  constexpr absl::string_view kNames[] = {"delay",
                                          "loss",
                                          "twice",
                                          "echo",
                                          "overtaking",
                                          "corruption",
                                          "reset",
                                          "one way",
                                          "partition",
                                          "slow link",
                                          "kill",
                                          "power loss",
                                          "stop",
                                          "slow node",
                                          "no memory",
                                          "disk full",
                                          "leave",
                                          "drain",
                                          "kill coordinator",
                                          "power loss of the coordinator",
                                          "stop coordinator",
                                          "crash at the disk",
                                          "disk error",
                                          "slow disk",
                                          "clock jump"};
  static_assert(std::size(kNames) == kFaultKinds);
  return kNames[static_cast<size_t>(fault)];
}

FaultInjector::FaultInjector(World& world, SimCoordinator& coordinator,
                             std::vector<std::unique_ptr<SimWorker>>& workers, MemoryDisk& disk,
                             std::function<void()> on_coordinator_crash)
    : world_(world),
      coordinator_(coordinator),
      workers_(workers),
      disk_(disk),
      on_coordinator_crash_(std::move(on_coordinator_crash)) {
  // Few kinds at a time: what many would hide, shows.
  Random& random = world_.random;
  const uint64_t share = 1 + random.Below(4);
  for (uint64_t kind = 0; kind < kFaultKinds; ++kind) {
    if (random.Below(6) >= share) continue;
    const auto fault = static_cast<Fault>(kind);
    kinds_.insert(fault);
    if (OfMessages(fault))
      of_messages_.insert(of_messages_.end(), fault == Fault::kEcho ? 4 : 1, fault);
    if (OfEvents(fault)) of_events_.push_back(fault);
  }
  event_gap_ = 15 + random.Below(150);
  message_gap_ = 8 + random.Below(120);
  world_.network.set_on_message(
      [this](const Connection& c, Connection::End from, const std::string& bytes) {
        return OnMessage(c, from, bytes);
      });
  disk_.set_on_op([this](DiskOp op) { return OnDisk(op); });
}

// The world ends without it: databases close, streams too.
FaultInjector::~FaultInjector() {
  world_.network.set_on_message(nullptr);
  disk_.set_on_op(nullptr);
}

template <class... Pieces>
void FaultInjector::Tell(Fault fault, const Pieces&... pieces) {
  ++faults_;
  world_.Say("FAULT", FaultName(fault), pieces...);
}

Process& FaultInjector::AnyProcess() {
  const size_t at = static_cast<size_t>(world_.random.Below(workers_.size() + 1));
  return at == workers_.size() ? world_.coordinator : workers_[at]->process();
}

SimWorker& FaultInjector::AnyWorker() {
  return *workers_[static_cast<size_t>(world_.random.Below(workers_.size()))];
}

absl::Duration FaultInjector::Between(absl::Duration least, absl::Duration most) {
  return least + (most - least) * world_.random.Uniform();
}

void FaultInjector::Die(Process& process, bool silent) {
  if (!process.up) return;
  process.up = false;
  dying_.emplace_back(&process, silent);
}

MessageFate FaultInjector::OnMessage(const Connection& connection, Connection::End from,
                                     const std::string& bytes) {
  MessageFate fate;
  if (active_ && copying_ && connection.kind() == ConnectionKind::kHop) {
    const auto to = from == Connection::kDialler ? Connection::kListener : Connection::kDialler;
    fate.ahead = OldFrame(bytes, connection.process(from), connection.process(to));
  }
  if (of_messages_.empty() || !Strikes(message_gap_)) return fate;
  const bool kv = connection.kind() == ConnectionKind::kKv;
  const bool hop = connection.kind() == ConnectionKind::kHop;
  Process& sender = connection.process(from);
  Process& receiver = connection.process(from == Connection::kDialler ? Connection::kListener
                                                                      : Connection::kDialler);
  const std::string where = absl::StrCat(": ", sender.name, " -> ", receiver.name,
                                         hop  ? ", hop"
                                         : kv ? ", KV"
                                              : ", control");
  const Fault fault = Any(of_messages_);
  switch (fault) {
    case Fault::kDelay:
      fate.delay = Between(absl::ZeroDuration(), absl::Milliseconds(500));
      break;
    case Fault::kLoss:
      fate.lost = hop;
      break;
    case Fault::kTwice:
      fate.twice = hop || kv;
      break;
    case Fault::kEcho:
      if (hop) fate.echo = Between(absl::Milliseconds(50), absl::Seconds(4));
      copying_ = true;
      break;
    case Fault::kOvertaking:
      fate.overtaken = hop;
      if (hop) fate.delay = Between(absl::ZeroDuration(), absl::Milliseconds(20));
      break;
    case Fault::kCorruption:
      fate.corrupted = hop || kv;
      break;
    case Fault::kReset:
      fate.breaks = true;
      break;
    case Fault::kKill:
    case Fault::kPowerLoss:
      // While it sends.
      if (&sender == &world_.coordinator || world_.random.Below(4) != 0) return fate;
      Die(sender, fault == Fault::kPowerLoss);
      break;
    default:
      return fate;
  }
  Tell(fault, where);
  return fate;
}

std::string FaultInjector::OldFrame(const std::string& frame, const Process& sender,
                                    const Process& receiver) {
  const auto numbers = NumbersOf(frame);
  if (!numbers || numbers->step > kLastCopied) return "";
  std::string& copy = copies_[{&sender, &receiver}][numbers->step];
  const auto old = NumbersOf(copy);
  const bool comes = old && old->epoch < numbers->epoch && world_.random.Below(3) == 0;
  if (comes) {
    Tell(Fault::kEcho, ": ", sender.name, " -> ", receiver.name, ", step ", old->step.v,
         " of epoch ", old->epoch.v, " before that of epoch ", numbers->epoch.v);
  }
  const std::string ahead = std::exchange(copy, frame);
  return comes ? ahead : "";
}

DiskFault FaultInjector::OnDisk(DiskOp op) {
  if (world_.Is(Mutation::kEpochsNotSaved) && op == DiskOp::kSync) return DiskFault::kLostSync;
  if (!Strikes(12)) return DiskFault::kNone;
  const Fault fault = world_.random.Below(3) == 0   ? Fault::kDiskCrash
                      : world_.random.Below(2) == 0 ? Fault::kDiskError
                                                    : Fault::kSlowDisk;
  if (kinds_.count(fault) == 0) return DiskFault::kNone;
  Tell(fault, op == DiskOp::kWrite ? ", while it writes" : ", while it syncs");
  switch (fault) {
    case Fault::kDiskCrash:
      Die(world_.coordinator, world_.random.Below(2) == 0);
      return DiskFault::kCrash;
    case Fault::kDiskError:
      return world_.random.Below(2) == 0 ? DiskFault::kFull : DiskFault::kError;
    default:
      world_.coordinator.busy_until =
          world_.loop.now() + Between(absl::ZeroDuration(), absl::Seconds(1));
      return DiskFault::kNone;
  }
}

void FaultInjector::BeforeEvent() {
  if (!of_events_.empty() && Strikes(event_gap_)) Strike(Any(of_events_));
}

void FaultInjector::Strike(Fault fault) {
  switch (fault) {
    case Fault::kOneWay:
    case Fault::kPartition:
    case Fault::kSlowLink:
      return StrikeLink(fault);
    case Fault::kCoordinatorKill:
    case Fault::kCoordinatorPowerLoss:
    case Fault::kCoordinatorStop:
      return StrikeCoordinator(fault);
    case Fault::kClockJump: {
      Process& process = AnyProcess();
      const absl::Duration by = Between(-absl::Hours(1), absl::Hours(1));
      process.clock_offset += by;
      return Tell(fault, ": ", process.name, " by ", absl::FormatDuration(by));
    }
    default:
      return StrikeNode(fault, AnyWorker());
  }
}

void FaultInjector::StrikeNode(Fault fault, SimWorker& worker) {
  Process& process = worker.process();
  if (!process.up) return;
  Tell(fault, ": ", process.name);
  switch (fault) {
    case Fault::kKill:
    case Fault::kPowerLoss:
      return Die(process, fault == Fault::kPowerLoss);
    case Fault::kStop:
      process.stopped_until = world_.loop.now() + Between(absl::Milliseconds(50), absl::Seconds(4));
      return;
    case Fault::kSlowNode:
      process.slowness = 10;
      return world_.loop.After(Between(absl::Milliseconds(200), absl::Seconds(4)), nullptr,
                               [&process] { process.slowness = 1; });
    case Fault::kNoMemory:
      return worker.FailNextStage("no memory for the stage");
    case Fault::kDiskFull:
      return worker.FailNextStage("no room on the disk for the weights");
    case Fault::kLeave:
      return worker.Leave();
    case Fault::kDrain: {
      if (!coordinator_.alive()) return;
      const NodeId node = process.node;
      coordinator_.Drain(node);
      return world_.loop.After(Between(absl::Milliseconds(200), absl::Seconds(3)), nullptr,
                               [this, node] {
                                 if (coordinator_.alive()) coordinator_.Undrain(node);
                               });
    }
    default:
      return;
  }
}

void FaultInjector::StrikeLink(Fault fault) {
  Process& a = AnyProcess();
  Process& b = AnyProcess();
  if (&a == &b) return;
  Tell(fault, ": ", a.name, " -> ", b.name);
  if (fault == Fault::kSlowLink) {
    world_.network.SetSlowness(a, b, 20);
    return world_.loop.After(Between(absl::Milliseconds(200), absl::Seconds(3)), nullptr,
                             [this, &a, &b] { world_.network.SetSlowness(a, b, 1); });
  }
  world_.network.Block(a, b);
  if (fault == Fault::kPartition) world_.network.Block(b, a);
  world_.loop.After(Between(absl::Milliseconds(50), absl::Seconds(6)), nullptr, [this, &a, &b] {
    world_.network.Unblock(a, b);
    world_.network.Unblock(b, a);
  });
}

void FaultInjector::StrikeCoordinator(Fault fault) {
  Process& process = world_.coordinator;
  if (!process.up || world_.random.Below(3) != 0) return;
  Tell(fault);
  if (fault == Fault::kCoordinatorStop) {
    process.stopped_until = world_.loop.now() + Between(absl::Milliseconds(50), absl::Seconds(3));
    return;
  }
  Die(process, fault == Fault::kCoordinatorPowerLoss);
}

void FaultInjector::AfterEvent() {
  for (const auto& [process, silent] : std::exchange(dying_, {})) {
    const absl::Duration away = Between(absl::Milliseconds(20), absl::Seconds(2));
    if (process == &world_.coordinator) {
      coordinator_.Crash(silent);
      on_coordinator_crash_();
      world_.loop.After(away, nullptr, [this] { coordinator_.Start(); });
      continue;
    }
    for (auto& worker : workers_) {
      if (&worker->process() != process) continue;
      worker->Crash(silent);
      world_.loop.After(away, nullptr, [&worker] { worker->Start(); });
    }
  }
}

void FaultInjector::HealAll() {
  active_ = false;
  world_.Say("FAULT", "no more from now on; all heals");
  world_.network.UnblockAll();
  for (auto& worker : workers_) {
    worker->process().slowness = 1;
    worker->FailNextStage("");
    worker->Start();
    if (coordinator_.alive()) coordinator_.Undrain(worker->process().node);
  }
  coordinator_.Start();
}

}  // namespace efedllm::faultsim
