// Keeps an epoch serving: listens to the workers, plans, assigns, waits until every stage is ready,
// tries the whole chain, and hands it to the scheduler; plans anew when the cluster changes.
#ifndef EFEDLLM_COORDINATOR_EPOCH_KEEPER_H_
#define EFEDLLM_COORDINATOR_EPOCH_KEEPER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/link.h"
#include "cluster/planner.h"
#include "cluster/stage_plan.h"
#include "common/clock.h"
#include "coordinator/epoch_builder.h"
#include "coordinator/link_survey.h"
#include "coordinator/membership.h"
#include "coordinator/membership_rules.h"
#include "coordinator/switching_pipeline.h"

namespace efedllm {

struct EpochKeeperOptions {
  MembershipRules rules;
  PlannerRules planner;
  std::vector<LayerCost> layers;
  NodeProfile own;                  // for computing alone
  uint64_t own_overhead_bytes = 0;  // of it, what the coordinator itself takes (head, buffers)
  // Measures the coordinator's own links and reports them by OnLink; empty: they stay unknown.
  std::function<void(const MeasureLinks&)> measure_links;
};

// What `efedllm-ctl status` shows of the cluster.
struct ClusterStatus {
  Epoch epoch;
  std::string state;            // "waiting", "loading", "serving", "draining"
  std::string reason;           // why it is not serving
  std::vector<Member> members;  // without their WorkerLinks
  std::vector<LinkSpeed> links;
  absl::Time now;
};

// What `efedllm-ctl plan --explain` shows.
struct PlanExplanation {
  ClusterStatus status;
  PlannerInput input;                            // what is known now
  StagePlan plan;                                // the present one; no chains: no workers compute
  std::vector<ChainForecast> forecasts;          // by chain
  std::vector<std::vector<double>> by_profile;   // seconds of a micro-batch, by chain and stage
  std::vector<std::vector<double>> by_measures;  // the same as measured; 0: not yet
  absl::StatusOr<PlanReport> next = absl::UnavailableError("no workers");  // as planned now
};

// Thread-safe. One thread of its own plans and acts.
class EpochKeeper {
 public:
  // All borrowed.
  EpochKeeper(const Clock& clock, EpochBuilder& builder, SwitchingPipeline& pipeline,
              const EpochKeeperOptions& options);
  ~EpochKeeper();  // Stop()

  void Start();
  // Ends the epoch, releases the workers, closes their streams. No effect the second time.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  // Only the word in the status.
  void SetDraining() ABSL_LOCKS_EXCLUDED(mu_);

  // From the control streams. A message through a link that is no longer the node's is ignored.
  // Unavailable: stopping.
  absl::Status Attach(NodeId node, const Hello& hello, std::shared_ptr<WorkerLink> link)
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnReport(NodeId node, const WorkerLink* link, const StageReport& report)
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnHeartbeat(NodeId node, const WorkerLink* link, const StageCounters& counters)
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnPong(NodeId node, const WorkerLink* link, absl::Time sent, absl::Time received,
              absl::Time worker_time) ABSL_LOCKS_EXCLUDED(mu_);
  // A link that `from` was asked to measure. link: null for the coordinator's own.
  void OnLink(NodeId from, const WorkerLink* link, const LinkSpeed& speed) ABSL_LOCKS_EXCLUDED(mu_);
  void OnLeaving(NodeId node, const WorkerLink* link) ABSL_LOCKS_EXCLUDED(mu_);
  void OnDetached(NodeId node, const WorkerLink* link) ABSL_LOCKS_EXCLUDED(mu_);

  // From the scheduler.
  void SetActiveSequences(size_t count);

  ClusterStatus Status() const ABSL_LOCKS_EXCLUDED(mu_);
  // Plans, without doing it: takes up to a second in very large clusters.
  PlanExplanation Explain() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Duration heartbeat() const { return options_.rules.heartbeat; }

 private:
  // The present epoch.
  struct Present {
    PlanState state = PlanState::kNone;
    StagePlan plan;
    bool alone = false;
    std::vector<NodeId> considered;
    std::shared_ptr<ClusterPipeline> pipeline;  // over workers, from its probe on
    absl::Time since;                           // of state
    bool lost_node = false;                     // why it broke: a node went away
    std::string refusal;                        // of the planner, where state is kRefused
  };

  void Loop();
  // Decides on what to do next, under the lock, and does it without. Returns when to look again.
  absl::Time Turn() ABSL_LOCKS_EXCLUDED(mu_);
  void Sweep(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  void SurveyLinks(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  MembershipView View(absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool AllReady() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  int FailuresInARow() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  std::string Reason(const MembershipMove& move) const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  // Takes over what the present epoch's steps were measured to take.
  void Learn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Compares the present plan with what would be planned now, by measured times.
  void LookForBetterPlan(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  PlannerInput InputFor(const std::vector<PlannerNode>& nodes) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);

  std::vector<HopTarget> Targets(const std::vector<Stage>& stages) ABSL_SHARED_LOCKS_REQUIRED(mu_);

  // On the keeper's thread.
  void Plan() ABSL_LOCKS_EXCLUDED(mu_);
  void PlanAlone(const std::vector<NodeId>& considered, const absl::Status& cluster_refusal)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status ServeAlone(StagePlan plan, const std::vector<NodeId>& considered)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Refuse(const std::vector<NodeId>& considered, const absl::Status& why)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Assign(StagePlan plan, const std::vector<NodeId>& considered)
      ABSL_LOCKS_EXCLUDED(mu_);
  void TryAndServe() ABSL_LOCKS_EXCLUDED(mu_);
  // The present epoch gives way to the next; why: what happens meanwhile, for clients.
  void EndEpoch(const std::string& why) ABSL_LOCKS_EXCLUDED(mu_);
  // The present epoch, if it is this one and lives, is over. Not with mu_ held: the pipeline's
  // on_end comes back here.
  void Break(Epoch epoch, const std::string& why, bool lost_node) ABSL_LOCKS_EXCLUDED(mu_);
  void Lose(NodeId node, const std::string& why) ABSL_LOCKS_EXCLUDED(mu_);
  void Fail(NodeId node, Epoch epoch, const std::string& why) ABSL_LOCKS_EXCLUDED(mu_);
  std::string Name(NodeId node) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool InPlan(const Member& member) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool Alive() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return present_.state == PlanState::kLoading || present_.state == PlanState::kServing;
  }
  bool ShouldWake() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return changed_ || stopping_; }

  // Constant after construction.
  const Clock& clock_;
  EpochBuilder& builder_;
  SwitchingPipeline& switch_;
  const EpochKeeperOptions options_;

  std::atomic<size_t> active_sequences_ = 0;

  mutable absl::Mutex mu_;
  Membership membership_ ABSL_GUARDED_BY(mu_);
  LinkSurvey survey_ ABSL_GUARDED_BY(mu_);
  Present present_ ABSL_GUARDED_BY(mu_);
  StagePlan last_plan_ ABSL_GUARDED_BY(mu_);  // over workers: the weights that they have
  // By node, against its profile: since it attached, over all epochs.
  std::map<NodeId, std::vector<SpeedFactor>> measured_ ABSL_GUARDED_BY(mu_);
  absl::Time next_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  absl::Time better_since_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  bool served_before_ ABSL_GUARDED_BY(mu_) = false;
  int plan_failures_ ABSL_GUARDED_BY(mu_) = 0;  // in a row, without a node being lost
  std::string reason_ ABSL_GUARDED_BY(mu_) = "starting";
  std::string preparing_ ABSL_GUARDED_BY(mu_);  // what the thread is busy with
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool changed_ ABSL_GUARDED_BY(mu_) = false;

  std::thread thread_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_EPOCH_KEEPER_H_
