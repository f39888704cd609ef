// The stages that a worker holds: the one that runs, and the one that was prepared for the next
// epoch. Like HeldStage without threads and clock.
#ifndef EFEDLLM_WORKER_STAGE_SLOTS_H_
#define EFEDLLM_WORKER_STAGE_SLOTS_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/ids.h"
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

  // Another node hands the KV of a prepared stage over: extent after extent, then FinishImport,
  // after which the stage counts as one that went on. FailedPrecondition: no stage of this epoch is
  // prepared that goes on with another's; others: see StageExecutor::ImportKv.
  absl::Status Import(Epoch epoch, SequenceId sequence, uint32_t first, uint32_t tokens,
                      absl::string_view bytes);
  absl::Status FinishImport(Epoch epoch);

  // From whom frames are taken.
  std::vector<NodeId> upstreams() const;
  const std::shared_ptr<HeldStage>& running() const { return running_; }  // or halted; or null
  const std::shared_ptr<HeldStage>& prepared() const { return prepared_; }
  // Those that ended since the last call: frames may still be in their hands.
  std::vector<std::shared_ptr<HeldStage>> TakeEnded();

 private:
  static bool MayAdopt(const HeldStage& from, const Assignment& assignment);
  void End(std::shared_ptr<HeldStage>& slot);

  std::shared_ptr<HeldStage> running_;
  std::shared_ptr<HeldStage> prepared_;
  std::vector<std::shared_ptr<HeldStage>> ended_;
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_SLOTS_H_
