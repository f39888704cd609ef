// A simulated worker: the real stages (worker/stage_slots.h, worker/held_stage.h) between simulated
// streams. What the daemon's threads do around them happens here in events.
#ifndef EFEDLLM_FAULTSIM_SIM_WORKER_H_
#define EFEDLLM_FAULTSIM_SIM_WORKER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/node_profile.h"
#include "efedllm/cluster.pb.h"
#include "faultsim/sim_hop.h"
#include "faultsim/world.h"
#include "net/hop.h"
#include "wire/cluster_wire.h"
#include "wire/handover_wire.h"
#include "worker/held_stage.h"
#include "worker/stage_slots.h"

namespace efedllm::faultsim {

class SimWorker {
 public:
  SimWorker(World& world, NodeId node, const NodeProfile& profile);
  SimWorker(const SimWorker&) = delete;
  SimWorker& operator=(const SimWorker&) = delete;

  Process& process() { return process_; }
  const Process& process() const { return process_; }

  void Start();
  // All that it has in memory is gone. silent: nobody tells its peers.
  void Crash(bool silent);
  // SIGTERM: it asks to be let go of, and starts again some time after that.
  void Leave();
  // The next stage that it is assigned does not fit into what memory there is then.
  void FailNextStage(std::string why) { fail_next_stage_ = std::move(why); }

  const StageSlots& slots() const { return life_->slots; }
  bool busy() const { return life_ != nullptr && (life_->computing || !life_->frames.empty()); }
  bool alive() const { return life_ != nullptr; }

 private:
  // What a life of the process has in memory.
  struct Life {
    explicit Life(SimWorker& worker)
        : clock(worker.world_.loop, worker.process_),
          receiver(clock, [&worker](HopFrame frame) { worker.OnFrame(std::move(frame)); }) {}

    const VirtualClock clock;
    SimHopReceiver receiver;
    Network::ConnectionPtr control;
    bool welcomed = false;
    bool leaving = false;
    absl::Duration heartbeat = absl::Seconds(1);
    uint64_t session = 0;  // counts up with each control stream
    absl::Duration backoff = absl::Milliseconds(50);
    VirtualTime last_ping = absl::ZeroDuration();

    StageSlots slots;
    uint64_t assignments = 0;  // only the last one counts
    std::deque<HopFrame> frames;
    bool computing = false;
    StageCounters counters;
  };

  // Control.
  void Attach();
  void OnControl(const std::string& bytes);
  void EndSession(const std::string& why);
  void Heartbeat(uint64_t session);
  void CheckPings(uint64_t session);
  void Restart();
  void Send(const v1::WorkerMessage& message);
  void Report(const StageReport& report);
  void ReportFailure(Epoch epoch, StageFault fault, const std::string& why);

  // Stages.
  void OnAssignment(const v1::Assignment& message);
  void CheckDownstream(const Assignment& assignment, uint64_t job);
  void BringUp(const Assignment& assignment);
  void ReportReady(Epoch epoch, bool kept);
  void OnRelease(Epoch epoch);
  void OnHandOver(const HandOver& hand_over);
  void AfterSlotsChanged();

  // KV that goes to another worker, and that comes from one.
  struct KvTransfer;
  void SendKv(const std::shared_ptr<KvTransfer>& transfer);
  void EndTransfer(KvTransfer& transfer, const absl::Status& answer);
  void OnKv(const Network::ConnectionPtr& connection, std::optional<Epoch>& next_epoch,
            const std::string& bytes);
  absl::StatusOr<bool> TakeKv(std::optional<Epoch>& next_epoch, const std::string& bytes);

  // Frames.
  bool Accept(const Network::ConnectionPtr& connection);
  void OnFrame(HopFrame frame);
  void Pump();
  void Finish(const std::shared_ptr<HeldStage>& stage, const std::shared_ptr<PassingFrame>& pass);
  void Halt(const std::shared_ptr<HeldStage>& stage, StageFault fault, const absl::Status& why);
  // The planted bug, if it is one of a worker's.
  void MutateArrival(HopFrame& hop);
  void MutateStep(PassingFrame& pass) const;
  void MutateResult(PassingFrame& pass, const HeldStage& stage) const;

  World& world_;
  Process process_;
  const NodeProfile profile_;
  std::string fail_next_stage_;
  std::unique_ptr<Life> life_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_SIM_WORKER_H_
