#include "simulator/simulation.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <optional>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "simulator/chain_scheduler.h"
#include "simulator/compute_servers.h"
#include "simulator/sim_plan.h"
#include "simulator/sim_statistics.h"
#include "simulator/stage_cost.h"

namespace efedllm {
namespace {

constexpr uint64_t kMostEffort = 600'000'000;  // some minutes
constexpr double kFrameBytes = 48;             // of a step's frame, activations apart
constexpr double kSpanBytes = 10;
constexpr double kTimingBytes = 24;  // of each stage that it has passed
constexpr size_t kHeadServer = 0;

enum class EventKind : uint8_t { kArrival, kAtDoor, kInside, kComputed };

struct Event {
  double at = 0;
  uint64_t order = 0;  // of two at the same time, the one that was scheduled first
  EventKind kind = EventKind::kArrival;
  uint32_t subject = 0;  // a request or a step
  uint32_t place = 0;    // a half of a leg, or a server

  friend bool operator>(const Event& a, const Event& b) {
    return a.at != b.at ? a.at > b.at : a.order > b.order;
  }
};

// A transfer of a chain: from the coordinator or a stage to the next stage or the coordinator, and
// where these can't reach each other, over the coordinator in two halves.
struct Leg {
  size_t from = 0;
  size_t to = 0;
  bool relayed = false;
};

struct SimStage {
  size_t server = 0;
  StageCost cost;
};

struct SimChain {
  std::vector<SimStage> stages;
  std::vector<Leg> legs;  // stages + 1
};

class Engine {
 public:
  Engine(const SimSpec& spec, const StagePlan& plan)
      : spec_(spec),
        coordinator_(spec.nodes.size()),
        network_(spec),
        servers_(spec.hosts,
                 [this](size_t server, uint32_t step, double end) {
                   Schedule(end, EventKind::kComputed, step, static_cast<uint32_t>(server));
                 }),
        head_cost_(StageCost::OfHead(spec.model, spec.coordinator)),
        random_(spec.seed ^ 0x5eed) {
    CHECK(servers_.Add(spec.coordinator) == kHeadServer);
    MakeRequests();
    for (const Chain& chain : plan.chains) AddChain(chain);
  }

  absl::Status Run() {
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      CHECK(event.at >= now_);
      now_ = event.at;
      ++statistics_.events;
      Handle(event);
      if (statistics_.events + effort_ > kMostEffort) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "this would take minutes; after ", statistics_.events, " events it stands at ", now_,
            " s of simulated time: simulate fewer requests, tokens or streams"));
      }
    }
    CHECK(waiting_.empty());  // every chain has KV for one whole context
    return absl::OkStatus();
  }

  SimResult Result(const StagePlan& plan) const;

 private:
  void Schedule(double at, EventKind kind, uint32_t subject, uint32_t place) {
    events_.push({at, ++last_event_, kind, subject, place});
  }
  void MakeRequests();
  void AddChain(const Chain& chain);
  void Handle(const Event& event);
  void OnArrival(uint32_t request);
  void Admit();
  void Submit();
  void Requeue(const std::vector<uint32_t>& preempted);
  uint32_t Keep(SimStep step);
  double FrameBytes(const SimStep& step, size_t leg) const;
  void SendLeg(uint32_t step, uint32_t half);
  void OnInside(uint32_t step, uint32_t half);
  void OnComputed(uint32_t step, size_t server);
  void OnHeadDone(uint32_t step);
  void OnToken(uint32_t request);

  const SimSpec& spec_;
  const size_t coordinator_;  // its index among the nodes
  SimNetwork network_;
  ComputeServers servers_;
  const StageCost head_cost_;
  Random random_;

  double now_ = 0;
  uint64_t last_event_ = 0;
  uint64_t effort_ = 0;  // beside events
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;

  std::vector<SimChain> chains_;
  std::vector<ChainScheduler> schedulers_;
  std::vector<size_t> stage_of_server_;  // within its chain
  std::vector<SimRequest> requests_;
  std::vector<size_t> chain_of_;  // of requests_
  std::deque<uint32_t> waiting_;  // requests
  uint32_t running_ = 0;
  uint32_t next_request_ = 0;   // that a stream sends next
  std::vector<SimStep> steps_;  // in flight, by number
  std::vector<uint32_t> free_steps_;
  SimStatistics statistics_;
};

uint32_t Draw(Random& random, const Range& range) {
  return range.least + static_cast<uint32_t>(random.Below(range.most - range.least + 1));
}

void Engine::MakeRequests() {
  const SimLoad& load = spec_.load;
  requests_.resize(load.requests);
  chain_of_.resize(load.requests);
  uint64_t tokens = 0;
  double arrives = 0;
  for (SimRequest& request : requests_) {
    request.prompt_tokens = Draw(random_, load.prompt_tokens);
    request.output_tokens = Draw(random_, load.output_tokens);
    tokens += request.output_tokens;
    if (load.arrivals_per_second == 0) continue;
    arrives -= std::log1p(-random_.Uniform()) / load.arrivals_per_second;
    request.arrived = arrives;
  }
  const bool open = load.arrivals_per_second > 0;
  next_request_ = open ? load.requests : std::min(load.streams, load.requests);
  for (uint32_t i = 0; i < next_request_; ++i) {
    Schedule(requests_[i].arrived, EventKind::kArrival, i, 0);
  }
  statistics_.output_tokens_expected = tokens;
}

void Engine::AddChain(const Chain& chain) {
  SimChain& made = chains_.emplace_back();
  size_t from = coordinator_;
  bool relayed = false;
  for (const Stage& stage : chain.stages) {
    const size_t node = SimNodeIndex(stage.node);
    const size_t server = servers_.Add(spec_.nodes[node]);
    stage_of_server_.resize(server + 1);
    stage_of_server_[server] = made.stages.size();
    made.stages.push_back(
        {server, StageCost::OfLayers(spec_.model, spec_.nodes[node], stage.layers.size())});
    made.legs.push_back({from, node, relayed});
    from = node;
    relayed = stage.relayed;
  }
  made.legs.push_back({from, coordinator_, false});
  schedulers_.emplace_back(chain, spec_.rules, requests_, effort_);
}

void Engine::Handle(const Event& event) {
  switch (event.kind) {
    case EventKind::kArrival:
      return OnArrival(event.subject);
    case EventKind::kAtDoor: {
      const SimStep& step = steps_[event.subject];
      const Leg& leg = chains_[step.chain].legs[event.place / 2];
      const bool first_half = leg.relayed && event.place % 2 == 0;
      const double inside = network_.Receive(event.place % 2 == 0 ? leg.from : coordinator_,
                                             first_half ? coordinator_ : leg.to,
                                             FrameBytes(step, event.place / 2), now_);
      const double at = inside + spec_.rules.hop_overhead_seconds;
      if (at > now_) return Schedule(at, EventKind::kInside, event.subject, event.place);
      return OnInside(event.subject, event.place);
    }
    case EventKind::kInside:
      return OnInside(event.subject, event.place);
    case EventKind::kComputed:
      return OnComputed(event.subject, event.place);
  }
}

void Engine::OnArrival(uint32_t request) {
  requests_[request].arrived = now_;
  waiting_.push_back(request);
  // While it works on the head, the scheduler sees nothing new.
  if (servers_.idle(kHeadServer)) Submit();
}

void Engine::Admit() {
  while (!waiting_.empty() && running_ < spec_.load.streams) {
    const SimRequest& request = requests_[waiting_.front()];
    std::optional<size_t> best;
    for (size_t chain = 0; chain < schedulers_.size(); ++chain) {
      if (!schedulers_[chain].Fits(request)) continue;
      if (!best || schedulers_[chain].load() < schedulers_[*best].load()) best = chain;
    }
    if (!best) return;  // nobody overtakes
    chain_of_[waiting_.front()] = *best;
    schedulers_[*best].Admit(waiting_.front());
    waiting_.pop_front();
    statistics_.most_running = std::max(statistics_.most_running, ++running_);
  }
}

void Engine::Submit() {
  Admit();
  for (size_t chain = 0; chain < chains_.size(); ++chain) {
    while (std::optional<SimStep> step = schedulers_[chain].NextStep()) {
      step->chain = chain;
      step->submitted = now_;
      ++statistics_.steps;
      statistics_.rows += step->work.rows;
      SendLeg(Keep(*std::move(step)), 0);
    }
    Requeue(schedulers_[chain].TakePreempted());
  }
}

// In the order of arrival, before those that came later.
void Engine::Requeue(const std::vector<uint32_t>& preempted) {
  for (const uint32_t request : preempted) {
    --running_;
    ++statistics_.preemptions;
    waiting_.insert(std::find_if(waiting_.begin(), waiting_.end(),
                                 [&](uint32_t other) { return other > request; }),
                    request);
  }
}

uint32_t Engine::Keep(SimStep step) {
  if (free_steps_.empty()) {
    steps_.push_back(std::move(step));
    return static_cast<uint32_t>(steps_.size() - 1);
  }
  const uint32_t number = free_steps_.back();
  free_steps_.pop_back();
  steps_[number] = std::move(step);
  return number;
}

double Engine::FrameBytes(const SimStep& step, size_t leg) const {
  return kFrameBytes + kSpanBytes * step.work.spans + kTimingBytes * static_cast<double>(leg) +
         static_cast<double>(step.work.rows) * spec_.model.d_model * spec_.rules.bytes_per_value;
}

void Engine::SendLeg(uint32_t number, uint32_t half) {
  const SimStep& step = steps_[number];
  const Leg& leg = chains_[step.chain].legs[half / 2];
  const size_t from = half % 2 == 0 ? leg.from : coordinator_;
  const size_t to = leg.relayed && half % 2 == 0 ? coordinator_ : leg.to;
  const double at = network_.Send(from, to, FrameBytes(step, half / 2), now_);
  Schedule(at, EventKind::kAtDoor, number, half);
}

void Engine::OnInside(uint32_t number, uint32_t half) {
  SimStep& step = steps_[number];
  const SimChain& chain = chains_[step.chain];
  const size_t leg = half / 2;
  if (chain.legs[leg].relayed && half % 2 == 0) return SendLeg(number, half + 1);
  step.arrived_at_stage = now_;
  if (leg == chain.stages.size()) {
    const double seconds =
        head_cost_.HeadSeconds(step.work.head_rows) + spec_.rules.step_overhead_seconds;
    return servers_.Push(kHeadServer, number, seconds, now_);
  }
  const SimStage& stage = chain.stages[leg];
  const double seconds = stage.cost.LayerSeconds(step.work) + spec_.rules.step_overhead_seconds;
  StageTiming timing;
  timing.compute_micros = static_cast<uint32_t>(seconds * 1e6);
  step.timings.push_back(timing);
  servers_.Push(stage.server, number, seconds, now_);
}

void Engine::OnComputed(uint32_t number, size_t server) {
  servers_.End(server, now_);
  if (server == kHeadServer) return OnHeadDone(number);
  SimStep& step = steps_[number];
  StageTiming& timing = step.timings.back();
  const double inside = now_ - step.arrived_at_stage;
  timing.queue_micros = static_cast<uint32_t>(std::max(inside * 1e6 - timing.compute_micros, 0.0));
  SendLeg(number, static_cast<uint32_t>(stage_of_server_[server] + 1) * 2);
}

void Engine::OnHeadDone(uint32_t number) {
  const SimStep& step = steps_[number];
  ChainScheduler& scheduler = schedulers_[step.chain];
  scheduler.Finish(step, step.arrived_at_stage - step.submitted,
                   head_cost_.HeadSeconds(step.work.head_rows));
  const std::vector<uint32_t> got_token = scheduler.GetToken(step);
  for (const uint32_t request : got_token) OnToken(request);
  if (!got_token.empty()) statistics_.OnTokens(now_, got_token.size(), servers_);
  free_steps_.push_back(number);
  Submit();
}

void Engine::OnToken(uint32_t number) {
  SimRequest& request = requests_[number];
  if (request.generated == 0) {
    request.first_token = now_;
  } else {
    statistics_.gaps.push_back(static_cast<float>(now_ - request.last_token));
  }
  request.last_token = now_;
  ChainScheduler& scheduler = schedulers_[chain_of_[number]];
  if (++request.generated < request.output_tokens) return scheduler.Extend(number);
  scheduler.Retire(number);
  --running_;
  if (next_request_ < requests_.size()) Schedule(now_, EventKind::kArrival, next_request_++, 0);
}

SimResult Engine::Result(const StagePlan& plan) const {
  SimResult result = statistics_.Summary(requests_);
  result.plan = plan;
  size_t server = kHeadServer + 1;
  for (size_t c = 0; c < plan.chains.size(); ++c) {
    for (const Stage& stage : plan.chains[c].stages) {
      result.stages.push_back(
          {c, SimNodeIndex(stage.node), stage.layers, statistics_.SteadyBusy(server, servers_)});
      ++server;
    }
  }
  result.head_busy = statistics_.SteadyBusy(kHeadServer, servers_);
  result.links = network_.Uses();
  for (const LinkUse& link : result.links) result.bytes += link.bytes;
  result.bytes_per_token = result.bytes / static_cast<double>(std::max<uint64_t>(
                                              result.prompt_tokens + result.output_tokens, 1));
  return result;
}

}  // namespace

absl::StatusOr<SimResult> Simulate(const SimSpec& spec) {
  ASSIGN_OR_RETURN(const PlanReport report, PlanSimulation(spec));
  Engine engine(spec, report.plan);
  RETURN_IF_ERROR(engine.Run());
  SimResult result = engine.Result(report.plan);
  result.advice = report.advice;
  return result;
}

}  // namespace efedllm
