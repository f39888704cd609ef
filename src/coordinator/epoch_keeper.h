// Keeps an epoch serving: listens to the workers, plans, assigns, waits until every stage is ready,
// tries the whole chain, and hands it to the scheduler; plans anew when the cluster changes, and
// prepares the next epoch while the present one serves, where that one is not broken.
#ifndef EFEDLLM_COORDINATOR_EPOCH_KEEPER_H_
#define EFEDLLM_COORDINATOR_EPOCH_KEEPER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/link.h"
#include "cluster/plan_repair.h"
#include "cluster/planner.h"
#include "cluster/stage_plan.h"
#include "common/clock.h"
#include "coordinator/epoch_builder.h"
#include "coordinator/link_survey.h"
#include "coordinator/membership.h"
#include "coordinator/membership_rules.h"
#include "coordinator/switching_pipeline.h"
#include "incentive/trust.h"

namespace efedllm {

struct EpochKeeperOptions {
  MembershipRules rules;
  PlannerRules planner;
  std::vector<LayerCost> layers;
  NodeProfile own;                  // for computing alone
  uint64_t own_overhead_bytes = 0;  // of it, what the coordinator itself takes (head, buffers)
  size_t standby = 0;               // nodes that get no layers, to take the place of others
  // Measures the coordinator's own links and reports them by OnLink; empty: they stay unknown.
  std::function<void(const MeasureLinks&)> measure_links;
  // Told on the keeper's thread, with no lock held: a node broke an epoch that served (kFailed), or
  // is much slower than it was (kLate). Empty: nobody is.
  std::function<void(NodeId, TrustEventKind)> on_lapse;
  // What share of a node's speed plans count on, above 0 to 1: by how reliable it is. Called with
  // the keeper's lock held. Empty: all of it.
  std::function<double(NodeId)> routing_share;
};

// What `efedllm-ctl status` shows of the cluster.
struct ClusterStatus {
  Epoch epoch;
  std::string state;   // "waiting", "loading", "serving", "draining"
  std::string reason;  // why it is not serving
  std::vector<Member> members;
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

// Thread-safe. One thread plans and acts: its own, from Start on, or the one that calls Turn.
class EpochKeeper {
 public:
  // All borrowed.
  EpochKeeper(const Clock& clock, EpochBuilder& builder, SwitchingPipeline& pipeline,
              const EpochKeeperOptions& options);
  ~EpochKeeper();  // Stop()

  void Start();
  // Looks at everything, decides what to do next, and does it. Returns when to look again if
  // nothing happens before. For tests that do without Start.
  absl::Time Turn() ABSL_LOCKS_EXCLUDED(mu_);
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
  // The worker wants to stop: another epoch is prepared without it, and then it is released.
  void OnLeaving(NodeId node, const WorkerLink* link) ABSL_LOCKS_EXCLUDED(mu_);
  void OnHandedOver(NodeId node, const WorkerLink* link, const HandedOver& handed_over)
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnDetached(NodeId node, const WorkerLink* link) ABSL_LOCKS_EXCLUDED(mu_);

  // From the operator: the node gets no layers from now on, and those that it holds move to others
  // first. It may be away. Undrain: it may get some again.
  void Drain(NodeId node) ABSL_LOCKS_EXCLUDED(mu_);
  void Undrain(NodeId node) ABSL_LOCKS_EXCLUDED(mu_);

  // By the rules of trust: the node gets no layers from now on, what serves ends at once, and
  // the next epoch goes on with no KV: it may have had a part in it. It may be away; where it is
  // barred already, only the reason is another. Readmit: it may get some again.
  void Bar(NodeId node, const std::string& why) ABSL_LOCKS_EXCLUDED(mu_);
  void Readmit(NodeId node) ABSL_LOCKS_EXCLUDED(mu_);

  // There are bases for codecs that were not there before.
  void OnBases() ABSL_LOCKS_EXCLUDED(mu_);

  // From the scheduler.
  void SetActiveSequences(size_t count);

  ClusterStatus Status() const ABSL_LOCKS_EXCLUDED(mu_);
  // Plans, without doing it: takes up to a second in very large clusters.
  PlanExplanation Explain() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Duration heartbeat() const { return options_.rules.heartbeat; }

 private:
  // What serves, or served last.
  struct Present {
    PlanState state = PlanState::kNone;  // never kLoading
    StagePlan plan;
    bool alone = false;
    std::vector<NodeId> considered;
    std::shared_ptr<ClusterPipeline> pipeline;  // over workers
    absl::Time since;                           // of state
    bool lost_node = false;                     // why it broke: a node went away
    std::string refusal;                        // of the planner, where state is kRefused
  };
  // What is to serve next.
  struct Next {
    enum class Phase { kLoading, kHandingOver, kProbing };
    Phase phase = Phase::kLoading;
    StagePlan plan;
    std::vector<NodeId> considered;
    std::shared_ptr<ClusterPipeline> pipeline;  // while it is tried
    std::map<NodeId, NodeId> sources;           // who gets KV handed over, and from whom
    size_t handing_over = 0;                    // nodes that do so now
    absl::Time give_up = absl::InfiniteFuture();
  };

  void Loop();
  // epoch_keeper.cc
  void ExcuseOwnPause(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  void Sweep(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  void SurveyLinks(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  void TellLapses() ABSL_LOCKS_EXCLUDED(mu_);
  void SendPrefetches() ABSL_LOCKS_EXCLUDED(mu_);
  void ReleaseLeaving() ABSL_LOCKS_EXCLUDED(mu_);
  MembershipView View(absl::Time now) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool MustMove() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  std::string Reason(const MembershipMove& move) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  std::string Name(NodeId node) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool Serves() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return present_.state == PlanState::kServing;
  }
  bool ShouldWake() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return changed_ || stopping_; }

  // epoch_keeper_planning.cc
  // Takes over what the present epoch's steps were measured to take.
  void Learn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Compares the present plan with what would be planned now, by measured times.
  void LookForBetterPlan(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  // Prepares the same plan anew if its edges are to be coded in another way.
  void LookForBetterCodecs(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  // A stage takes much longer than it did.
  bool HasStraggler() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  PlannerInput InputFor(const std::vector<PlannerNode>& nodes) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  PlannerInput WithoutStandby(PlannerInput input) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void Plan() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<StagePlan> ChoosePlan(const PlannerInput& input) ABSL_LOCKS_EXCLUDED(mu_);
  void MakeRoom(const PlannerInput& input, const StagePlan& next) ABSL_LOCKS_EXCLUDED(mu_);
  void PlanAlone(const std::vector<NodeId>& considered, const absl::Status& cluster_refusal)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status ServeAlone(StagePlan plan, const std::vector<NodeId>& considered)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Refuse(const std::vector<NodeId>& considered, const absl::Status& why)
      ABSL_LOCKS_EXCLUDED(mu_);

  // epoch_keeper_next.cc: the next epoch, from its assignments until it serves.
  absl::Status Prepare(StagePlan plan, const std::vector<NodeId>& considered)
      ABSL_LOCKS_EXCLUDED(mu_);
  // As far as it goes without waiting.
  void AdvanceNext(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<HopTarget> Targets(const std::vector<Stage>& stages) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Whose frames come to the coordinator.
  void SetUpstreams() ABSL_LOCKS_EXCLUDED(mu_);
  bool NextIsReady() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // All KV that is handed over.
  bool HasArrived() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // By stage, whose KV it goes on with; nullopt: none.
  std::vector<std::optional<NodeId>> KeptStages() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  struct Transfer {
    NodeId node;
    std::shared_ptr<WorkerLink> link;  // its
    HandOver hand_over;
  };
  std::vector<Transfer> WorthwhileTransfers() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Feeds the present epoch no more; true if KV is on its way from nodes that leave.
  bool StartHandOver(absl::Time now) ABSL_LOCKS_EXCLUDED(mu_);
  void StartProbe() ABSL_LOCKS_EXCLUDED(mu_);
  void ServeNext() ABSL_LOCKS_EXCLUDED(mu_);
  // It does not come up; what serves goes on.
  void GiveUpNext(const std::string& why, bool lost_node) ABSL_LOCKS_EXCLUDED(mu_);

  // epoch_keeper_events.cc
  // The epoch, present or next, if it lives, is over. Not with mu_ held: the pipeline's on_end
  // comes back here.
  void Break(Epoch epoch, const std::string& why, bool lost_node) ABSL_LOCKS_EXCLUDED(mu_);
  void OnPipelineEnd(Epoch epoch, const absl::Status& why) ABSL_LOCKS_EXCLUDED(mu_);
  void Lose(NodeId node, const std::string& why) ABSL_LOCKS_EXCLUDED(mu_);
  void Fail(NodeId node, const StageReport& report) ABSL_LOCKS_EXCLUDED(mu_);
  // Whose fault a report says it is, and what follows for the next plan.
  void Blame(Member& member, const StageReport& report) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The node that a step waits for, as far as the counters tell; nullptr: nobody.
  Member* Laggard() ABSL_SHARED_LOCKS_REQUIRED(mu_);

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
  std::optional<Next> next_ ABSL_GUARDED_BY(mu_);
  StagePlan last_plan_ ABSL_GUARDED_BY(mu_);  // over workers: the weights that they have
  StagePlan served_ ABSL_GUARDED_BY(mu_);     // whose KV the nodes may have still; epoch 0: none
  std::set<NodeId> drained_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<NodeId, TrustEventKind>> lapses_ ABSL_GUARDED_BY(mu_);  // not told yet
  std::map<NodeId, std::string> barred_ ABSL_GUARDED_BY(mu_);                   // and why
  std::set<NodeId> prefetching_ ABSL_GUARDED_BY(mu_);  // were told what to fetch
  std::vector<NodeId> expected_ ABSL_GUARDED_BY(mu_);  // after a restart
  absl::Time expected_until_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  // Candidates for which there was no plan while something served.
  std::optional<std::vector<NodeId>> refused_ ABSL_GUARDED_BY(mu_);
  // By node, against its profile: since it attached, over all epochs.
  std::map<NodeId, std::vector<SpeedFactor>> measured_ ABSL_GUARDED_BY(mu_);
  absl::Time next_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  absl::Time next_straggler_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  absl::Time next_codec_look_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  // By node of the present plan: the least that a step of one row was measured to take.
  std::map<NodeId, double> best_seconds_ ABSL_GUARDED_BY(mu_);
  absl::Time better_since_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  bool served_before_ ABSL_GUARDED_BY(mu_) = false;
  int plan_failures_ ABSL_GUARDED_BY(mu_) = 0;  // in a row, without a node being lost
  absl::Time last_failure_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  std::string reason_ ABSL_GUARDED_BY(mu_) = "starting";
  std::string preparing_ ABSL_GUARDED_BY(mu_);  // what the thread is busy with
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool changed_ ABSL_GUARDED_BY(mu_) = false;

  absl::Time last_turn_ = absl::InfinitePast();  // of the thread that plans and acts
  absl::Time next_turn_ = absl::InfinitePast();  // when it wanted to look again
  std::thread thread_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_EPOCH_KEEPER_H_
