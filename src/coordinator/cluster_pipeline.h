// One epoch over workers: steps go to the first stage of their chain, results come from its last.
#ifndef EFEDLLM_COORDINATOR_CLUSTER_PIPELINE_H_
#define EFEDLLM_COORDINATOR_CLUSTER_PIPELINE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/stage_times.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/edge_codecs.h"
#include "coordinator/hop_inbox.h"
#include "coordinator/hop_relay.h"
#include "coordinator/pipeline.h"
#include "coordinator/receipt_checker.h"
#include "net/hop.h"
#include "svd/codec.h"
#include "svd/row_range.h"
#include "wire/step_wire.h"

namespace efedllm {

// How long a step may take, by what steps were measured to take: of a step that is overdue somebody
// may be the cause, one that is lost ends the epoch.
struct StepDeadlines {
  absl::Duration overdue = absl::Milliseconds(300);
  double overdue_factor = 4;
  absl::Duration lost = absl::Seconds(2);
  double lost_factor = 10;
  double unmeasured = 2;  // times as long as long as nothing was measured
};

struct ClusterPipelineOptions {
  PipelineCapacity capacity;
  size_t d_model = 0;
  const Clock* clock = nullptr;  // borrowed; that of HopFrame::received
  // Of one step of so many tokens through all stages of a chain, before any was measured.
  std::function<absl::Duration(size_t chain, size_t tokens)> estimate;
  StepDeadlines deadlines;
  ReceiptChecker* receipts = nullptr;  // borrowed; knows of the epoch; null: none are expected
  // When the trial of Probe() is through. As on_end.
  std::function<void()> on_probed;
  // Called once, when the epoch ends, by whichever thread ends it, with no lock held.
  std::function<void(const absl::Status& why)> on_end;
};

// The coordinator's ends of a chain.
struct ChainEdges {
  std::unique_ptr<FrameSender> first;
  std::vector<NodeId> stages;         // the last one's frames are results
  std::vector<EdgeCodec> coded = {};  // as PlanCodecs has them; empty: all f32

  EdgeCodec edge(size_t i) const { return coded.empty() ? EdgeCodec() : coded[i]; }
};

// Frames of `from` go on to `to` unread.
struct RelayedEdge {
  NodeId from;
  std::unique_ptr<FrameSender> to;
  size_t chain = 0;
};

// The epoch ends once: by End, by a broken hop, by a step that takes too long, or by a peer that
// answers with what was not asked. Then every step in flight yields Unavailable.
class ClusterPipeline final : public Pipeline, public HopSink {
 public:
  // edges: by chain. Whoever makes it passes frames and ticks on to it.
  static std::shared_ptr<ClusterPipeline> Create(const ClusterPipelineOptions& options,
                                                 std::vector<ChainEdges> edges,
                                                 std::vector<RelayedEdge> relayed);
  // The same, served from inbox in place of the pipeline before it, which has ended.
  static std::shared_ptr<ClusterPipeline> Open(const ClusterPipelineOptions& options,
                                               std::vector<ChainEdges> edges,
                                               std::vector<RelayedEdge> relayed, HopInbox& inbox);

  absl::StatusOr<PipelineCapacity> Capacity() const override ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Submit(Step step, size_t chain, Matrix hidden) override ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<StepResult> NextResult(absl::Duration timeout) override ABSL_LOCKS_EXCLUDED(mu_);
  void SetActiveSequences(size_t) override {}

  void OnFrame(const HopFrame& frame) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnTick() override ABSL_LOCKS_EXCLUDED(mu_);

  // Sends one made-up token through every chain and back, and frees it again; an empty step where
  // the chain goes on with KV. Does not wait. Once,
  // before the epoch is anybody else's. If it fails, or takes too long, the epoch ends.
  void Probe() ABSL_LOCKS_EXCLUDED(mu_);
  bool probed() const ABSL_LOCKS_EXCLUDED(mu_);

  // Is a step late enough to look for who holds it up?
  bool Overdue() const ABSL_LOCKS_EXCLUDED(mu_);

  // No effect after the first. Never blocks.
  void End(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mu_);
  // OK while the epoch lives. Cheap.
  absl::Status ended() const ABSL_LOCKS_EXCLUDED(mu_);

  // What the steps of this epoch took so far, by chain.
  std::vector<ChainTimes> Times() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct InFlight {
    Step step;  // as it is on the wire
    StepId id;  // the caller's
    bool probe = false;
    absl::Time submitted;
    absl::Time overdue, lost;
  };
  struct ChainState {
    uint64_t next_step = 1;
    size_t untaken = 0;  // submitted, and the result not taken yet: these are bounded
    size_t tokens_in_flight = 0;
    std::deque<InFlight> in_flight;
    ChainTimes times;
  };

  ClusterPipeline(const ClusterPipelineOptions& options, std::vector<ChainEdges> edges,
                  std::vector<RelayedEdge> relayed);

  // Sets a step's deadlines.
  void Expect(size_t chain, InFlight& step) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::Status Send(size_t chain, Step step, StepId id, bool probe, const Matrix& hidden)
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnResult(size_t chain, const HopFrame& frame) ABSL_LOCKS_EXCLUDED(mu_);
  enum class Verdict { kWrong, kResult, kProbe, kLastProbe };
  // Takes frame_ as the result of the chain's oldest step. kWrong: it is not.
  Verdict Accept(size_t chain, const HopFrame& hop) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool HasResult() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !results_.empty(); }

  // Constant after construction.
  const ClusterPipelineOptions options_;
  const std::vector<ChainEdges> edges_;
  std::map<NodeId, std::unique_ptr<HopRelay>> relays_;  // by whose frames they pass on

  // Of the inbox's thread; decoders_ by chain.
  StepFrame frame_;
  EncodedRows received_;
  std::vector<RowSide> received_sides_;
  std::vector<ActivationCodec> decoders_;
  std::vector<RowRange> ranges_;  // by chain

  absl::Mutex encode_mu_;
  std::vector<ActivationCodec> encoders_ ABSL_GUARDED_BY(encode_mu_);  // by chain
  EncodedRows sent_ ABSL_GUARDED_BY(encode_mu_);

  mutable absl::Mutex mu_;
  absl::Status ended_ ABSL_GUARDED_BY(mu_);
  std::vector<ChainState> chains_ ABSL_GUARDED_BY(mu_);
  std::deque<StepResult> results_ ABSL_GUARDED_BY(mu_);  // bounded by the steps in flight
  size_t probes_left_ ABSL_GUARDED_BY(mu_) = 0;
  bool probed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_CLUSTER_PIPELINE_H_
