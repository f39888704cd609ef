// Decides, by the seed, what goes wrong: at each message, each access to the disk and each event.
#ifndef EFEDLLM_FAULTSIM_FAULT_INJECTOR_H_
#define EFEDLLM_FAULTSIM_FAULT_INJECTOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/random.h"
#include "faultsim/memory_disk.h"
#include "faultsim/sim_coordinator.h"
#include "faultsim/sim_worker.h"
#include "faultsim/world.h"

namespace efedllm::faultsim {

enum class Fault {
  kDelay,       // a message takes up to half a second
  kLoss,        // a message of a hop is lost
  kTwice,       // a message of a hop comes twice
  kEcho,        // copies of a hop's frames come later: after a while, or when another epoch's step
                // of that number goes by
  kOvertaking,  // a message of a hop is overtaken
  kCorruption,  // a bit of a hop's frame flips
  kReset,       // a connection breaks
  kOneWay,      // nothing gets from one node to another
  kPartition,   // nor back
  kSlowLink,    // a link takes twenty times as long
  kKill,        // a worker dies, and starts again
  kPowerLoss,   // the same, and its peers are not told
  kStop,        // a worker hangs for a while
  kSlowNode,    // a worker takes ten times as long
  kNoMemory,    // a worker can't hold the next stage that it is given
  kDiskFull,    // a worker has no room for the next stage's weights
  kLeave,       // a worker is asked to stop (SIGTERM)
  kDrain,       // the operator takes a worker out, and back in
  kCoordinatorKill,
  kCoordinatorPowerLoss,
  kCoordinatorStop,
  kDiskCrash,  // the coordinator's machine dies at a write or sync
  kDiskError,  // the coordinator's disk is full, or fails
  kSlowDisk,   // a sync takes up to a second
  kClockJump,  // a wall clock is set by up to an hour
  kCount,
};
absl::string_view FaultName(Fault fault);

class FaultInjector {
 public:
  // All borrowed. Which kinds there are, and how often, depends on the seed.
  FaultInjector(World& world, SimCoordinator& coordinator,
                std::vector<std::unique_ptr<SimWorker>>& workers, MemoryDisk& disk,
                std::function<void()> on_coordinator_crash);

  ~FaultInjector();
  FaultInjector(const FaultInjector&) = delete;
  FaultInjector& operator=(const FaultInjector&) = delete;

  // Before each event.
  void BeforeEvent();
  // After each event: who died in it is buried.
  void AfterEvent();
  // No more faults; what is broken is mended, who is away comes back.
  void HealAll();

  uint64_t faults() const { return faults_; }

 private:
  Fault Any(const std::vector<Fault>& faults) {
    return faults[static_cast<size_t>(world_.random.Below(faults.size()))];
  }
  bool Strikes(uint64_t gap) { return active_ && world_.random.Below(gap) == 0; }
  MessageFate OnMessage(const Connection& connection, Connection::End from,
                        const std::string& bytes);
  DiskFault OnDisk(DiskOp op);
  // A frame of an earlier epoch, on the same way, that would do as this one. Keeps copies.
  std::string OldFrame(const std::string& frame, const Process& sender, const Process& receiver);
  void Strike(Fault fault);
  void StrikeNode(Fault fault, SimWorker& worker);
  void StrikeLink(Fault fault);
  void StrikeCoordinator(Fault fault);
  template <class... Pieces>
  void Tell(Fault fault, const Pieces&... pieces);
  // Of both ends: process dies within the event that runs.
  void Die(Process& process, bool silent);
  Process& AnyProcess();
  SimWorker& AnyWorker();
  absl::Duration Between(absl::Duration least, absl::Duration most);

  World& world_;
  SimCoordinator& coordinator_;
  std::vector<std::unique_ptr<SimWorker>>& workers_;
  MemoryDisk& disk_;
  const std::function<void()> on_coordinator_crash_;

  std::set<Fault> kinds_;
  std::vector<Fault> of_messages_;
  std::vector<Fault> of_events_;
  uint64_t event_gap_ = 100;    // events between two faults, on average
  uint64_t message_gap_ = 100;  // messages
  bool active_ = true;
  uint64_t faults_ = 0;
  std::vector<std::pair<Process*, bool>> dying_;  // and whether in silence
  // The first frames of an epoch, by step, in each direction: kept from the first kEcho on.
  bool copying_ = false;
  std::map<std::pair<const Process*, const Process*>, std::map<StepId, std::string>> copies_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_FAULT_INJECTOR_H_
