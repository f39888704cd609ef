// The next epoch: its stages come up beside those that serve, KV is handed over to them where that
// is quicker than to compute it again, one step is tried, and then it serves.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "coordinator/epoch_keeper.h"

namespace efedllm {
namespace {

constexpr absl::Duration kHandOverTimeout = absl::Seconds(4);
// Of links that were not measured.
constexpr double kBytesPerSecond = 50e6;
// Rows of a replay's steps.
constexpr double kReplayRows = 128;

}  // namespace

std::vector<HopTarget> EpochKeeper::Targets(const std::vector<Stage>& stages) const {
  std::vector<HopTarget> targets;
  for (const Stage& stage : stages) {
    const Member* member = membership_.Find(stage.node);
    targets.push_back({stage.node, member == nullptr ? "" : member->hello.hop_address});
  }
  return targets;
}

void EpochKeeper::SetUpstreams() {
  std::vector<NodeId> upstreams;
  {
    absl::MutexLock lock(&mu_);
    std::vector<Chain> chains;
    if (Serves() && !present_.alone) chains = present_.plan.chains;
    if (next_) chains.insert(chains.end(), next_->plan.chains.begin(), next_->plan.chains.end());
    for (const Chain& chain : chains) {
      for (const Stage& stage : chain.stages) {
        if (stage.relayed || &stage == &chain.stages.back()) upstreams.push_back(stage.node);
      }
    }
  }
  std::sort(upstreams.begin(), upstreams.end());
  upstreams.erase(std::unique(upstreams.begin(), upstreams.end()), upstreams.end());
  builder_.SetUpstreams(std::move(upstreams));
}

absl::Status EpochKeeper::Prepare(StagePlan plan, const std::vector<NodeId>& considered) {
  ASSIGN_OR_RETURN(plan.epoch, builder_.NextEpoch());
  const std::vector<Stage> stages = plan.AllStages();
  std::vector<HopTarget> targets;
  PlannerInput known;
  Epoch continues;
  {
    absl::MutexLock lock(&mu_);
    if (!Serves()) preparing_ = "preparing the weights";
    targets = Targets(stages);
    known = InputFor(membership_.PlannerNodes(membership_.Candidates(clock_.Now())));
    continues = served_.epoch;
  }
  absl::StatusOr<std::vector<Assignment>> assignments =
      builder_.Assignments(plan, targets, known, continues);
  std::shared_ptr<ClusterPipeline> replaced;
  {
    absl::MutexLock lock(&mu_);
    preparing_.clear();
    RETURN_IF_ERROR(assignments.status());
    for (const Stage& stage : stages) {
      const Member* member = membership_.Find(stage.node);
      if (member == nullptr || !member->attached()) return absl::OkStatus();  // plan again
    }
    const absl::Time now = clock_.Now();
    membership_.ForgetNext();
    for (size_t i = 0; i < stages.size(); ++i) {
      Member& member = *membership_.Find(stages[i].node);
      membership_.Prepare(member, plan.epoch, stages[i].layers, now);
      prefetching_.erase(member.node);
      member.link->Assign((*assignments)[i]);
      spdlog::info("epoch {}: layers [{}, {}) on {}", plan.epoch.v, stages[i].layers.first,
                   stages[i].layers.last, Name(member.node));
    }
    if (next_) replaced = std::move(next_->pipeline);
    next_ = Next();
    last_plan_ = plan;
    next_->plan = std::move(plan);
    next_->considered = considered;
    expected_.clear();
    expected_until_ = absl::InfinitePast();
  }
  if (replaced) replaced->End(absl::UnavailableError("another epoch is prepared"));
  SetUpstreams();
  return absl::OkStatus();
}

bool EpochKeeper::NextIsReady() const {
  for (const Stage& stage : next_->plan.AllStages()) {
    const Member* member = membership_.Find(stage.node);
    if (member == nullptr || !member->next || member->next->state != MemberState::kReady) {
      return false;
    }
  }
  return true;
}

bool EpochKeeper::HasArrived() const {
  for (const auto& [node, from] : next_->sources) {
    const Member* member = membership_.Find(node);
    if (member == nullptr || !member->next || !member->next->report.kept) return false;
  }
  return true;
}

std::vector<std::optional<NodeId>> EpochKeeper::KeptStages() const {
  std::vector<std::optional<NodeId>> kept;
  for (const Stage& stage : next_->plan.AllStages()) {
    std::optional<NodeId>& of = kept.emplace_back();
    const Member* member = membership_.Find(stage.node);
    if (member == nullptr || !member->next || !member->next->report.kept) continue;
    const auto source = next_->sources.find(stage.node);
    of = source == next_->sources.end() ? stage.node : source->second;
  }
  return kept;
}

void EpochKeeper::AdvanceNext(absl::Time now) {
  bool ready = false, begin = false, serve = false;
  absl::Status ended;
  {
    absl::MutexLock lock(&mu_);
    if (!next_) return;
    switch (next_->phase) {
      case Next::Phase::kLoading:
        ready = NextIsReady();
        break;
      case Next::Phase::kHandingOver:
        begin = HasArrived() || next_->handing_over == 0 || now > next_->give_up;
        break;
      case Next::Phase::kProbing:
        serve = next_->pipeline->probed();
        ended = next_->pipeline->ended();
        break;
    }
  }
  if (ready) begin = !StartHandOver(now);
  if (begin) StartProbe();
  if (serve) return ServeNext();
  if (!ended.ok()) GiveUpNext(std::string(ended.message()), /*lost_node=*/false);
}

// A stage that moves as it is from a node that is still there.
std::vector<EpochKeeper::Transfer> EpochKeeper::WorthwhileTransfers() const {
  std::vector<Transfer> transfers;
  if (!Serves() || present_.alone || active_sequences_.load() == 0) return transfers;
  const std::vector<Stage> stages = next_->plan.AllStages();
  const std::vector<std::optional<NodeId>> kept = KeptStages();
  std::set<NodeId> heirs;  // each takes the KV of one
  const LayerSums sums(options_.layers);
  const auto is_kept = [&](const Stage& stage) {
    return kept[static_cast<size_t>(&stage - stages.data())].has_value();
  };
  for (const Stage& old : present_.plan.AllStages()) {
    // Who goes on with its own KV gives it to nobody.
    const bool keeps = std::any_of(stages.begin(), stages.end(), [&](const Stage& s) {
      return s.node == old.node && is_kept(s);
    });
    const auto heir = std::find_if(stages.begin(), stages.end(), [&](const Stage& s) {
      return s.layers == old.layers && s.node != old.node && !is_kept(s) &&
             heirs.count(s.node) == 0;
    });
    if (keeps || heir == stages.end()) continue;
    const Member* from = membership_.Find(old.node);
    const Member* to = membership_.Find(heir->node);
    if (from == nullptr || !from->attached() || to == nullptr) continue;
    const auto tokens = static_cast<double>(from->counters.kv_tokens_used);
    const double per_token =
        static_cast<double>(sums.Bytes(old.layers, 1) - sums.WeightBytes(old.layers)) +
        options_.planner.row_bytes;
    double rate = kBytesPerSecond;
    for (const LinkSpeed& link : membership_.Links()) {
      if (link.from == old.node && link.to == heir->node && link.bytes_per_second > 0) {
        rate = link.bytes_per_second;
      }
    }
    const double replay =
        sums.Seconds(to->hello.profile, old.layers, kReplayRows) * tokens / kReplayRows;
    if (tokens == 0 || tokens * per_token / rate >= replay) continue;
    heirs.insert(heir->node);
    transfers.push_back(
        {old.node,
         from->link,
         {present_.plan.epoch, next_->plan.epoch, heir->node, to->hello.hop_address}});
  }
  return transfers;
}

bool EpochKeeper::StartHandOver(absl::Time now) {
  std::vector<Transfer> transfers;
  std::shared_ptr<ClusterPipeline> pipeline;
  {
    absl::MutexLock lock(&mu_);
    if (!next_) return false;
    transfers = WorthwhileTransfers();
    if (transfers.empty()) return false;
    next_->phase = Next::Phase::kHandingOver;
    next_->give_up = now + kHandOverTimeout;
    next_->handing_over = transfers.size();
    for (const Transfer& transfer : transfers) {
      next_->sources[transfer.hand_over.to] = transfer.node;
      spdlog::info("epoch {}: KV goes to {}", next_->plan.epoch.v, Name(transfer.hand_over.to));
    }
    Learn();
    pipeline = present_.pipeline;
    present_.state = PlanState::kBroken;
    present_.since = now;
  }
  const absl::Status why = absl::UnavailableError("a stage moves to another node");
  switch_.Stop(why);
  if (pipeline) pipeline->End(why);
  for (const Transfer& transfer : transfers) transfer.link->HandOver(transfer.hand_over);
  return true;
}

void EpochKeeper::StartProbe() {
  EpochOverWorkers epoch;
  std::shared_ptr<ClusterPipeline> before;
  std::vector<PlannerNode> nodes;
  {
    absl::MutexLock lock(&mu_);
    if (!next_) return;
    epoch.plan = next_->plan;
    const std::vector<Stage> stages = epoch.plan.AllStages();
    epoch.targets = Targets(stages);
    std::vector<Candidate> holders;
    holders.reserve(stages.size());
    for (const Stage& stage : stages) holders.push_back({stage.node, absl::Time()});
    nodes = membership_.PlannerNodes(holders);
    epoch.continues.resize(epoch.plan.chains.size());
    if (served_.epoch.v != 0) {
      const auto successions = Succeed(served_, epoch.plan, KeptStages());
      for (size_t c = 0; c < successions.size(); ++c) {
        if (!successions[c]) continue;
        epoch.continues[c] = {served_.epoch, successions[c]->chain, successions[c]->lost};
      }
    }
    Learn();
    before = std::move(present_.pipeline);
    present_.pipeline = nullptr;
    if (Serves()) {
      present_.state = PlanState::kBroken;
      present_.since = clock_.Now();
    }
  }
  const Epoch number = epoch.plan.epoch;
  const absl::Status why = absl::UnavailableError(absl::StrCat("epoch ", number.v, " begins"));
  switch_.Stop(why);
  if (before) before->End(why);
  epoch.estimate = [plan = epoch.plan, nodes, layers = options_.layers](size_t chain,
                                                                        size_t tokens) {
    return EstimateStep(plan.chains[chain], layers, nodes, tokens);
  };
  epoch.on_probed = [this] {
    absl::MutexLock lock(&mu_);
    changed_ = true;
  };
  epoch.on_end = [this, number](const absl::Status& status) { OnPipelineEnd(number, status); };
  const std::shared_ptr<ClusterPipeline> pipeline = builder_.OverWorkers(std::move(epoch));
  {
    absl::MutexLock lock(&mu_);
    if (!next_ || next_->plan.epoch != number) return;
    next_->pipeline = pipeline;
    next_->phase = Next::Phase::kProbing;
    changed_ = true;
  }
  pipeline->Probe();
}

void EpochKeeper::ServeNext() {
  std::shared_ptr<ClusterPipeline> pipeline;
  std::vector<std::shared_ptr<WorkerLink>> released;
  StoredPlan stored;
  {
    absl::MutexLock lock(&mu_);
    if (!next_) return;
    pipeline = next_->pipeline;
    present_ = Present();
    present_.state = PlanState::kServing;
    present_.since = clock_.Now();
    present_.plan = std::move(next_->plan);
    present_.considered = std::move(next_->considered);
    present_.pipeline = pipeline;
    next_.reset();
    served_ = present_.plan;
    next_look_ = present_.since + options_.rules.replan_interval;
    best_seconds_.clear();
    served_before_ = true;
    refused_.reset();
    reason_.clear();
    for (Member* member : membership_.Begin(present_.plan.epoch)) {
      if (member->attached()) released.push_back(member->link);
    }
    const std::vector<Stage> stages = present_.plan.AllStages();
    spdlog::info("epoch {} serves: {} stages, {} tokens of KV", present_.plan.epoch.v,
                 stages.size(), present_.plan.chains.front().kv_tokens);
    stored = {present_.plan.epoch, present_.plan, {}};
    for (const Member* member : membership_.All()) {
      if (member->attached()) stored.nodes.push_back(member->node);
    }
    switch_.Serve(pipeline);
  }
  SetUpstreams();
  for (const auto& link : released) link->Release(stored.epoch);
  const absl::Status saved = builder_.SavePlan(stored);
  if (!saved.ok()) spdlog::error("the plan was not stored: {}", std::string(saved.message()));
}

void EpochKeeper::GiveUpNext(const std::string& why, bool lost_node) {
  std::shared_ptr<ClusterPipeline> pipeline;
  {
    absl::MutexLock lock(&mu_);
    changed_ = true;
    if (!next_) return;
    spdlog::warn("epoch {} is given up: {}", next_->plan.epoch.v, why);
    pipeline = std::move(next_->pipeline);
    next_.reset();
    membership_.ForgetNext();
    last_failure_ = clock_.Now();
    plan_failures_ = lost_node ? 0 : plan_failures_ + 1;
    // So that it is planned again although the same nodes are there.
    present_.considered.clear();
    if (present_.state == PlanState::kBroken) present_.since = last_failure_;
  }
  if (pipeline) pipeline->End(absl::UnavailableError(why));
}

}  // namespace efedllm
