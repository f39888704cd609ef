// The stages that a worker holds: the one that runs, and the one that was prepared for the next
// epoch. Like HeldStage without threads and clock.
#ifndef EFEDLLM_WORKER_STAGE_SLOTS_H_
#define EFEDLLM_WORKER_STAGE_SLOTS_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ids.h"
#include "layers/kv_cache.h"
#include "wire/cluster_wire.h"
#include "worker/held_stage.h"

namespace efedllm {

// Of a frame: StageOf, then the stage's Read, then Enter, then Compute and Write while the stage
// is running(). One call at a time.
class StageSlots {
 public:
  // Whether a stage of this assignment can go on with the KV that is here: of the epoch that it
  // continues, or of one that went on with that; and of the same weights, layers and KV.
  bool CanContinue(const Assignment& assignment) const;
  // What weights and KV take when a stage of this assignment stands beside the one that runs.
  // Tensors of both count once.
  uint64_t BytesBeside(const Assignment& assignment) const;

  // Puts it beside the stage that runs, in place of the one that was prepared before. One without
  // an executor adopts that of the stage that runs: CanContinue holds.
  void Prepare(std::shared_ptr<HeldStage> stage);

  // The stage that a frame of this peer is for. null: none, it is of another epoch: drop it. What
  // is no frame at all is for the peer's stage, whose Read will say so.
  std::shared_ptr<HeldStage> StageOf(NodeId peer, const grpc::ByteBuffer& frame) const;
  // A frame was read. With the first one the prepared stage becomes the one that runs, and the one
  // before ends. False: the stage ended meanwhile: drop the frame.
  bool Enter(const std::shared_ptr<HeldStage>& stage);

  // The stage can't go on, but its KV stays for the next epoch. A prepared one is dropped. False:
  // it neither runs nor is it prepared: it ended before.
  bool Halt(const HeldStage& stage);

  // Ends one or both.
  void DropPrepared();
  void DropRunning();
  void Release();

  // Hands KV over, frame by frame (wire/kv_wire.h). Export: of the halted stage of this epoch, the
  // extent's positions from first on, as many as a frame takes; first moves past them. NotFound:
  // there is no such stage any more, or a later epoch went on with its KV.
  absl::StatusOr<grpc::ByteBuffer> Export(Epoch epoch, Epoch next_epoch, const KvExtent& extent,
                                          uint32_t& first) const;
  // Import: into the prepared stage, which counts as one that went on after FinishImport.
  // FailedPrecondition: no stage of this epoch is prepared that is to go on with another's KV;
  // others: see KvFromWire and StageExecutor::ImportKv.
  absl::Status Import(const grpc::ByteBuffer& frame);
  absl::Status FinishImport(Epoch epoch);

  // From whom frames are taken. Those for a halted stage are too, and dropped: to end their stream
  // would make it look as if this node were at fault.
  std::vector<NodeId> upstreams() const;
  const std::shared_ptr<HeldStage>& running() const { return running_; }  // or halted; or null
  const std::shared_ptr<HeldStage>& prepared() const { return prepared_; }
  // Those that ended since the last call: frames may still be in their hands.
  std::vector<std::shared_ptr<HeldStage>> TakeEnded();

 private:
  absl::Status CheckImport(Epoch epoch) const;
  static bool MayAdopt(const HeldStage& from, const Assignment& assignment);
  void End(std::shared_ptr<HeldStage>& slot);

  std::shared_ptr<HeldStage> running_;
  std::shared_ptr<HeldStage> prepared_;
  std::vector<std::shared_ptr<HeldStage>> ended_;
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_SLOTS_H_
