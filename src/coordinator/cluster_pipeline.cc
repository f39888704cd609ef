#include "coordinator/cluster_pipeline.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr absl::Duration kSendSlice = absl::Milliseconds(50);
// No request has it: sequence numbers count up from one.
constexpr SequenceId kProbeSequence{std::numeric_limits<uint64_t>::max()};

}  // namespace

std::shared_ptr<ClusterPipeline> ClusterPipeline::Create(const ClusterPipelineOptions& options,
                                                         std::vector<ChainEdges> edges,
                                                         std::vector<RelayedEdge> relayed) {
  return std::shared_ptr<ClusterPipeline>(
      new ClusterPipeline(options, std::move(edges), std::move(relayed)));
}

std::shared_ptr<ClusterPipeline> ClusterPipeline::Open(const ClusterPipelineOptions& options,
                                                       std::vector<ChainEdges> edges,
                                                       std::vector<RelayedEdge> relayed,
                                                       HopInbox& inbox) {
  std::shared_ptr<ClusterPipeline> pipeline = Create(options, std::move(edges), std::move(relayed));
  inbox.Serve(pipeline);
  return pipeline;
}

ClusterPipeline::ClusterPipeline(const ClusterPipelineOptions& options,
                                 std::vector<ChainEdges> edges, std::vector<RelayedEdge> relayed)
    : options_(options), edges_(std::move(edges)), chains_(options.capacity.chains.size()) {
  for (size_t i = 0; i < chains_.size(); ++i) {
    chains_[i].times = ChainTimes(options_.capacity.chains[i].stages);
  }
  decoders_.reserve(edges_.size());
  encoders_.reserve(edges_.size());
  for (const ChainEdges& chain : edges_) {
    const std::shared_ptr<const BoundaryBasis> receiving = chain.edge(chain.stages.size()).basis;
    decoders_.emplace_back(options_.d_model, receiving);
    ranges_.emplace_back(receiving.get());
    encoders_.emplace_back(options_.d_model, chain.edge(0).basis);
  }
  for (RelayedEdge& edge : relayed) {
    const size_t most = MaxStepsInFlight(options_.capacity.chains[edge.chain]);
    relays_[edge.from] = std::make_unique<HopRelay>(std::move(edge.to), most);
  }
}

absl::StatusOr<PipelineCapacity> ClusterPipeline::Capacity() const {
  RETURN_IF_ERROR(ended());
  return options_.capacity;
}

absl::Status ClusterPipeline::ended() const {
  absl::MutexLock lock(&mu_);
  return ended_;
}

std::vector<ChainTimes> ClusterPipeline::Times() const {
  absl::MutexLock lock(&mu_);
  std::vector<ChainTimes> times;
  for (const ChainState& chain : chains_) times.push_back(chain.times);
  return times;
}

void ClusterPipeline::End(const absl::Status& why) {
  {
    absl::MutexLock lock(&mu_);
    if (!ended_.ok()) return;
    ended_ = absl::UnavailableError(why.message());
    for (size_t i = 0; i < chains_.size(); ++i) {
      for (const InFlight& lost : chains_[i].in_flight) {
        if (lost.probe) continue;
        StepResult result;
        result.epoch = options_.capacity.epoch;
        result.chain = i;
        result.id = lost.id;
        result.status = ended_;
        results_.push_back(std::move(result));
      }
      chains_[i].in_flight.clear();
    }
  }
  if (options_.receipts != nullptr) options_.receipts->End(options_.capacity.epoch);
  for (const ChainEdges& edge : edges_) edge.first->Abandon();
  if (options_.on_end) options_.on_end(why);
}

void ClusterPipeline::Expect(size_t chain, InFlight& step) const {
  const ChainState& state = chains_[chain];
  const StepDeadlines& deadlines = options_.deadlines;
  const auto tokens = static_cast<uint32_t>(state.tokens_in_flight);
  const absl::Duration expected = state.times.known()
                                      ? absl::Seconds(state.times.Pass(tokens, 0))
                                      : deadlines.unmeasured * options_.estimate(chain, tokens);
  const double doubt = state.times.known() ? 1 : deadlines.unmeasured;
  step.overdue = step.submitted + doubt * deadlines.overdue + deadlines.overdue_factor * expected;
  step.lost = step.submitted + doubt * deadlines.lost + deadlines.lost_factor * expected;
}

absl::Status ClusterPipeline::Submit(Step step, size_t chain, Matrix hidden) {
  const Epoch epoch = options_.capacity.epoch;
  if (step.epoch != epoch) {
    return absl::AbortedError(absl::StrCat("the present epoch is ", epoch.v));
  }
  const StepId id = step.id;
  return Send(chain, std::move(step), id, /*probe=*/false, hidden);
}

absl::Status ClusterPipeline::Send(size_t chain, Step step, StepId id, bool probe,
                                   const Matrix& hidden) {
  absl::Time lost;
  {
    absl::MutexLock lock(&mu_);
    if (!ended_.ok()) return absl::AbortedError(ended_.message());
    ChainState& state = chains_[chain];
    if (state.untaken >= MaxStepsInFlight(options_.capacity.chains[chain])) {
      return absl::ResourceExhaustedError("too many steps in flight");
    }
    if (!probe) ++state.untaken;
    step.id = StepId{state.next_step++};
    state.tokens_in_flight += step.tokens();
    InFlight& entry = state.in_flight.emplace_back();
    entry.step = step;
    entry.id = id;
    entry.probe = probe;
    entry.submitted = options_.clock->Now();
    Expect(chain, entry);
    lost = entry.lost;
  }
  const CodecSetting setting = edges_[chain].edge(0).setting;
  std::string activations;
  std::vector<RowSide> sides;
  {
    absl::MutexLock lock(&encode_mu_);
    sent_.Clear();
    if (hidden.rows() > 0) {
      encoders_[chain].Encode(setting, hidden.ref(), activations,
                              options_.receipts != nullptr ? &sent_ : nullptr);
    }
    DigestRows(sent_, setting.number(), sides);
  }
  if (options_.receipts != nullptr) {
    options_.receipts->Submitted(options_.capacity.epoch, chain, step, std::move(sides));
  }
  const grpc::ByteBuffer frame = StepToWire(step, std::move(activations), setting);
  absl::Status sent;
  do {
    sent = edges_[chain].first->Send(frame, kSendSlice);
  } while (absl::IsDeadlineExceeded(sent) && ended().ok() && options_.clock->Now() < lost);
  // The step stands in flight already, so it yields its result through NextResult.
  if (!sent.ok()) {
    End(absl::UnavailableError(absl::StrCat("the hop to the first stage broke: ", sent.message())));
  }
  return absl::OkStatus();
}

void ClusterPipeline::OnFrame(const HopFrame& frame) {
  if (!ended().ok()) return;
  for (size_t chain = 0; chain < edges_.size(); ++chain) {
    if (edges_[chain].stages.back() == frame.peer) return OnResult(chain, frame);
  }
  const auto relay = relays_.find(frame.peer);
  if (relay == relays_.end()) return;  // of an epoch that is over
  const absl::Status forwarded = relay->second->Forward(frame.bytes);
  if (forwarded.ok()) return;
  End(absl::UnavailableError(
      absl::StrCat("node ", NodeName(frame.peer), ": ", forwarded.message())));
}

void ClusterPipeline::OnTick() {
  for (const auto& [from, relay] : relays_) {
    const absl::Status status = relay->status();
    if (status.ok()) continue;
    return End(
        absl::UnavailableError(absl::StrCat("the hop from node ", NodeName(from),
                                            " through the coordinator broke: ", status.message())));
  }
  bool lost = false;
  {
    absl::MutexLock lock(&mu_);
    const absl::Time now = options_.clock->Now();
    for (const ChainState& chain : chains_) {
      lost |= !chain.in_flight.empty() && now > chain.in_flight.front().lost;
    }
  }
  if (lost) End(absl::DeadlineExceededError("a step took far longer than steps take"));
}

bool ClusterPipeline::Overdue() const {
  absl::MutexLock lock(&mu_);
  const absl::Time now = options_.clock->Now();
  return std::any_of(chains_.begin(), chains_.end(), [&](const ChainState& chain) {
    return !chain.in_flight.empty() && now > chain.in_flight.front().overdue;
  });
}

void ClusterPipeline::OnResult(size_t chain, const HopFrame& frame) {
  received_.Clear();
  absl::Status read = StepFromWire(frame.bytes, options_.capacity.limits, decoders_[chain], frame_,
                                   options_.receipts != nullptr ? &received_ : nullptr);
  if (read.ok()) read = ranges_[chain].Check(frame_.hidden.ref());
  if (!read.ok()) {
    return End(absl::UnavailableError(
        absl::StrCat("node ", NodeName(frame.peer), " sent a malformed result: ", read.message())));
  }
  if (frame_.step.epoch != options_.capacity.epoch) return;  // of an epoch that is over
  Verdict verdict = Verdict::kWrong;
  absl::Status failure;
  {
    absl::MutexLock lock(&mu_);
    if (!ended_.ok()) return;
    failure = frame_.failure;
    const StepId id = frame_.step.id;
    const uint32_t codec = frame_.codec.number();
    verdict = Accept(chain, frame);
    if (verdict != Verdict::kWrong && options_.receipts != nullptr) {
      DigestRows(received_, codec, received_sides_);
      options_.receipts->Returned(options_.capacity.epoch, chain, id, failure.ok(),
                                  received_sides_);
    }
  }
  if (verdict == Verdict::kWrong) {
    return End(absl::UnavailableError(
        absl::StrCat("node ", NodeName(frame.peer), " sent a result that nobody waits for")));
  }
  if (verdict == Verdict::kResult) return;
  if (!failure.ok()) {
    return End(absl::UnavailableError(absl::StrCat("its trial failed: ", failure.message())));
  }
  if (verdict == Verdict::kLastProbe && options_.on_probed) options_.on_probed();
}

ClusterPipeline::Verdict ClusterPipeline::Accept(size_t chain, const HopFrame& hop) {
  ChainState& state = chains_[chain];
  if (state.in_flight.empty()) return Verdict::kWrong;
  const InFlight& oldest = state.in_flight.front();
  if (frame_.step.id != oldest.step.id || frame_.step.spans != oldest.step.spans) {
    return Verdict::kWrong;
  }
  const size_t tokens = oldest.step.tokens();
  const bool probe = oldest.probe;
  const std::vector<NodeId>& stages = edges_[chain].stages;
  if (frame_.timings.size() > stages.size()) return Verdict::kWrong;
  for (size_t i = 0; i < frame_.timings.size(); ++i) {
    frame_.timings[i].node = stages[i];
    frame_.timings[i].received_codec = edges_[chain].edge(i).setting.number();
  }
  StepResult result;
  result.epoch = options_.capacity.epoch;
  result.chain = chain;
  result.id = oldest.id;
  result.status = std::move(frame_.failure);
  if (result.status.ok()) {
    result.hidden = std::move(frame_.hidden);
    if (tokens > 0 && !oldest.step.replay()) {
      state.times.ObserveStep(static_cast<uint32_t>(tokens), frame_.timings,
                              hop.received - oldest.submitted);
    }
  }
  result.timings = std::move(frame_.timings);
  result.returned = hop.received;
  result.received_codec = frame_.codec.number();
  result.received_bytes = static_cast<uint32_t>(frame_.encoded_bytes);
  frame_ = StepFrame();
  state.tokens_in_flight -= tokens;
  state.in_flight.pop_front();
  if (!probe) {
    results_.push_back(std::move(result));
    return Verdict::kResult;
  }
  if (--probes_left_ > 0) return Verdict::kProbe;
  probed_ = result.status.ok();
  return Verdict::kLastProbe;
}

std::optional<StepResult> ClusterPipeline::NextResult(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  if (results_.empty() && timeout > absl::ZeroDuration()) {
    mu_.AwaitWithTimeout(absl::Condition(this, &ClusterPipeline::HasResult), timeout);
  }
  if (results_.empty()) return std::nullopt;
  StepResult result = std::move(results_.front());
  results_.pop_front();
  --chains_[result.chain].untaken;
  return result;
}

void ClusterPipeline::Probe() {
  Step step;
  step.epoch = options_.capacity.epoch;
  step.forget_others = true;  // what a node may have kept is of no use to this chain
  step.spans.push_back({kProbeSequence, 0, 1});
  Step release;
  release.epoch = step.epoch;
  release.trims.push_back({kProbeSequence, 0});
  Matrix hidden(1, options_.d_model);
  for (size_t i = 0; i < options_.d_model; ++i) {
    hidden.row(0)[i] = static_cast<float>(static_cast<int>(i % 17) - 8) / 8;
  }
  // Where KV goes on there may be no page for a token more: an empty step must do.
  const auto goes_on = [this](size_t chain) {
    return options_.capacity.chains[chain].continues.has_value();
  };
  {
    absl::MutexLock lock(&mu_);
    for (size_t chain = 0; chain < edges_.size(); ++chain) probes_left_ += goes_on(chain) ? 1 : 2;
  }
  for (size_t chain = 0; chain < edges_.size(); ++chain) {
    // Where it can't be sent, the epoch has ended.
    if (!goes_on(chain)) Send(chain, step, StepId{0}, /*probe=*/true, hidden).IgnoreError();
    Send(chain, release, StepId{0}, /*probe=*/true, Matrix(0, options_.d_model)).IgnoreError();
  }
}

bool ClusterPipeline::probed() const {
  absl::MutexLock lock(&mu_);
  return probed_ && ended_.ok();
}

}  // namespace efedllm
