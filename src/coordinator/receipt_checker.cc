#include "coordinator/receipt_checker.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace efedllm {
namespace {

constexpr size_t kMostEpochs = 16;
constexpr size_t kMostAnswers = 64;      // of a node and epoch, to be given once more
constexpr size_t kMostSequences = 4096;  // of a chain, that ended and whose claims may be late
constexpr size_t kMostEvents = size_t{1} << 16;

// A stage computes one step at a time, so it can't have computed for longer than steps of its chain
// were under way, but for clocks that run a little differently, and this machine's having been
// halted while a step went on.
absl::Duration MostTime(absl::Duration passed) { return 1.05 * passed + absl::Milliseconds(500); }

}  // namespace

absl::string_view ReceiptRefusalName(ReceiptRefusal refusal) {
  switch (refusal) {
    case ReceiptRefusal::kUnknownStage:
      return "unknown stage";
    case ReceiptRefusal::kNumber:
      return "number";
    case ReceiptRefusal::kSignature:
      return "signature";
    case ReceiptRefusal::kManifest:
      return "manifest";
    case ReceiptRefusal::kNotAsked:
      return "not asked";
    case ReceiptRefusal::kTime:
      return "time";
    case ReceiptRefusal::kBehind:
      return "behind";
  }
  return "?";
}

void ReceiptChecker::Start(ReceiptSink& sink) {
  sink_ = &sink;
  thread_ = std::thread([this] { Loop(); });
}

void ReceiptChecker::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void ReceiptChecker::Loop() {
  const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stopping_ || !events_.empty();
  };
  absl::MutexLock lock(&mu_);
  while (true) {
    mu_.Await(absl::Condition(&has_work));
    if (events_.empty()) return;
    const Event event = std::move(events_.front());
    events_.pop_front();
    telling_ = true;
    mu_.Unlock();
    event(*sink_);
    mu_.Lock();
    telling_ = false;
  }
}

void ReceiptChecker::Flush() {
  const auto idle = [this]()
                        ABSL_SHARED_LOCKS_REQUIRED(mu_) { return events_.empty() && !telling_; };
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&idle));
}

ReceiptChecker::Counters ReceiptChecker::counters() const {
  absl::MutexLock lock(&mu_);
  return counters_;
}

size_t ReceiptChecker::ChainState::KindOf(size_t stage) const {
  const bool replays = std::binary_search(chain.replayed.begin(), chain.replayed.end(),
                                          static_cast<uint32_t>(stage));
  return replays ? 0 : 1;
}

absl::Duration ReceiptChecker::ChainState::Worked(absl::Time now) const {
  return worked + (working_since ? now - *working_since : absl::ZeroDuration());
}

void ReceiptChecker::Begin(Epoch epoch, std::vector<ReceiptChain> chains) {
  absl::MutexLock lock(&mu_);
  EpochState& state = epochs_[epoch] = EpochState();
  for (ReceiptChain& chain : chains) {
    for (size_t i = 0; i < chain.stages.size(); ++i) {
      NodeState& node = state.nodes[chain.stages[i]->node];
      node.chain = state.chains.size();
      node.stage = i;
    }
    state.chains.emplace_back().chain = std::move(chain);
  }
  if (epochs_.size() > kMostEpochs) epochs_.erase(epochs_.begin());
}

void ReceiptChecker::End(Epoch epoch) {
  absl::MutexLock lock(&mu_);
  EpochState* state = Find(epoch);
  if (state == nullptr) return;
  state->ended = true;
  for (ChainState& chain : state->chains) chain.in_flight.clear();
}

ReceiptChecker::EpochState* ReceiptChecker::Find(Epoch epoch) {
  const auto it = epochs_.find(epoch);
  return it == epochs_.end() ? nullptr : &it->second;
}

void ReceiptChecker::Submitted(Epoch epoch, size_t chain, const Step& step,
                               std::vector<RowSide> inputs) {
  absl::MutexLock lock(&mu_);
  EpochState* state = Find(epoch);
  if (state == nullptr || state->ended) return;
  ChainState& of = state->chains[chain];
  for (const SequenceFork& fork : step.forks) {
    Tell([fork](ReceiptSink& sink) { sink.OnFork(fork); });
  }
  for (const SequenceSpan& span : step.spans) {
    SequenceState& sequence = of.sequences[span.sequence];
    sequence.stages.resize(of.chain.stages.size());
    sequence.asked[0] += span.tokens;
    if (!step.replay()) sequence.asked[1] += span.tokens;
    sequence.least = std::min(sequence.least, span.first_position);
    sequence.end = std::max(sequence.end, span.first_position + span.tokens);
  }
  if (!of.working_since) of.working_since = clock_.Now();
  of.in_flight.push_back({step, std::move(inputs)});
}

void ReceiptChecker::Returned(Epoch epoch, size_t chain, StepId step, bool computed,
                              absl::Span<const RowSide> outputs) {
  absl::MutexLock lock(&mu_);
  EpochState* state = Find(epoch);
  if (state == nullptr || state->ended) return;
  ChainState& of = state->chains[chain];
  while (!of.in_flight.empty() && of.in_flight.front().step.id < step) of.in_flight.pop_front();
  if (of.in_flight.empty() || of.in_flight.front().step.id != step) return;
  const InFlight returned = std::move(of.in_flight.front());
  of.in_flight.pop_front();
  if (of.in_flight.empty()) {
    of.worked = of.Worked(clock_.Now());
    of.working_since.reset();
  }
  Settle(of, returned, computed, outputs);
}

void ReceiptChecker::Settle(ChainState& chain, const InFlight& returned, bool computed,
                            absl::Span<const RowSide> outputs) {
  const Step& step = returned.step;
  std::vector<RecordedRow> rows;
  if (computed && !step.spans.empty()) {
    rows.resize(step.tokens());
    for (size_t i = 0; i < rows.size(); ++i) {
      if (returned.inputs.size() == rows.size()) rows[i].input = returned.inputs[i];
      if (outputs.size() == rows.size()) rows[i].output = outputs[i];
    }
  }
  if (!computed) {
    for (const SequenceSpan& span : step.spans) chain.sequences[span.sequence].uneven = true;
  }
  std::array<std::vector<ClosedChunk>, 2> closed;
  chain.records[0].Pass(step, rows, closed[0]);
  if (step.replay()) rows.clear();
  chain.records[1].Pass(step, rows, closed[1]);
  const uint64_t pass = ++chain.passes;
  std::map<SequenceId, SequenceState*> changed;
  for (size_t kind = 0; kind < closed.size(); ++kind) {
    if (kind == 0 && chain.chain.replayed.empty()) continue;
    for (ClosedChunk& chunk : closed[kind]) {
      const auto it = chain.sequences.find(chunk.claim.sequence);
      if (it == chain.sequences.end() || it->second.uneven) continue;
      std::deque<Settled>& settled = it->second.settled;
      const auto same = std::find_if(settled.begin(), settled.end(), [&](const Settled& s) {
        return s.pass == pass && s.chunk.claim.first_position == chunk.claim.first_position &&
               s.chunk.claim.tokens == chunk.claim.tokens;
      });
      if (same != settled.end()) {
        same->has[kind] = true;
        continue;
      }
      Settled& added = settled.emplace_back();
      added.chunk = std::move(chunk);
      added.pass = pass;
      added.has[kind] = true;
      added.claims.resize(chain.chain.stages.size());
      changed[it->first] = &it->second;
    }
  }
  for (const auto& [id, sequence] : changed) Match(chain, id, *sequence);
  for (const SequenceTrim& trim : step.trims) {
    const auto it = chain.sequences.find(trim.sequence);
    if (it != chain.sequences.end() && trim.length == 0) it->second.released = true;
  }
  ForgetOld(chain);
}

void ReceiptChecker::ForgetOld(ChainState& chain) {
  for (auto it = chain.sequences.begin();
       chain.sequences.size() > kMostSequences && it != chain.sequences.end();) {
    it = it->second.released ? chain.sequences.erase(it) : std::next(it);
  }
}

ReceiptAnswer ReceiptChecker::Refuse(const SignedReceipt& receipt, ReceiptRefusal why,
                                     std::string detail) {
  ++counters_.refused[static_cast<size_t>(why)];
  Tell([refused = RefusedReceipt{receipt, why, std::move(detail)}](ReceiptSink& sink) {
    sink.OnRefused(refused);
  });
  return {receipt.receipt.epoch, receipt.receipt.number, std::nullopt,
          std::string(ReceiptRefusalName(why))};
}

const ChunkClaim* ReceiptChecker::NotAsked(const Receipt& receipt, const NodeState& node,
                                           const ChainState& chain) {
  std::map<SequenceId, uint64_t> claimed;
  for (const ChunkClaim& chunk : receipt.chunks) {
    const auto it = chain.sequences.find(chunk.sequence);
    if (it == chain.sequences.end()) return &chunk;
    const SequenceState& sequence = it->second;
    uint64_t& rows = claimed[chunk.sequence];
    rows += chunk.tokens;
    if (chunk.first_position < sequence.least || chunk.end() > sequence.end ||
        sequence.stages[node.stage].claimed + rows > sequence.asked[chain.KindOf(node.stage)]) {
      return &chunk;
    }
  }
  return nullptr;
}

std::optional<std::pair<ReceiptRefusal, std::string>> ReceiptChecker::Check(
    const SignedReceipt& signed_receipt, const PublicKey& key, const NodeState& node,
    const ChainState& chain) const {
  const Receipt& receipt = signed_receipt.receipt;
  if (!VerifyReceipt(signed_receipt, key)) {
    return std::pair(ReceiptRefusal::kSignature, "it is not signed by the node's key");
  }
  if (receipt.number != node.next_number) {
    return std::pair(ReceiptRefusal::kNumber, absl::StrCat("its number is ", receipt.number,
                                                           " instead of ", node.next_number));
  }
  const ReceiptStage& stage = *chain.chain.stages[node.stage];
  const LayerRange given = stage.assignment.layers;
  if (receipt.stage != node.stage || receipt.layers != given ||
      receipt.manifest != stage.manifest) {
    return std::pair(ReceiptRefusal::kManifest,
                     absl::StrCat("it is for stage ", receipt.stage, ", layers [",
                                  receipt.layers.first, ", ", receipt.layers.last, "), manifest ",
                                  ToHex(receipt.manifest), " instead of ", node.stage, ", [",
                                  given.first, ", ", given.last, "), ", ToHex(stage.manifest)));
  }
  if (const ChunkClaim* chunk = NotAsked(receipt, node, chain)) {
    return std::pair(ReceiptRefusal::kNotAsked,
                     absl::StrCat("nobody asked for positions [", chunk->first_position, ", ",
                                  chunk->end(), ") of sequence ", chunk->sequence.v, " here, or ",
                                  "they were claimed before"));
  }
  const absl::Duration computed = absl::Microseconds(static_cast<double>(node.compute_micros) +
                                                     static_cast<double>(receipt.compute_micros));
  const absl::Duration worked = chain.Worked(clock_.Now());
  if (computed > MostTime(worked)) {
    return std::pair(ReceiptRefusal::kTime,
                     absl::StrCat("it makes ", absl::FormatDuration(computed),
                                  " of computing, and its chain had steps under way for ",
                                  absl::FormatDuration(worked)));
  }
  return std::nullopt;
}

ReceiptAnswer ReceiptChecker::Take(const SignedReceipt& receipt, const PublicKey& key) {
  absl::MutexLock lock(&mu_);
  EpochState* epoch = Find(receipt.receipt.epoch);
  const auto it = epoch == nullptr ? decltype(epoch->nodes)::iterator()
                                   : epoch->nodes.find(receipt.receipt.node);
  if (epoch == nullptr || it == epoch->nodes.end()) {
    return Refuse(receipt, ReceiptRefusal::kUnknownStage, "");
  }
  NodeState& node = it->second;
  for (const auto& [signature, answer] : node.answers) {
    if (signature == receipt.signature && answer.number == receipt.receipt.number) return answer;
  }
  if (events_.size() > kMostEvents) return Refuse(receipt, ReceiptRefusal::kBehind, "");
  ChainState& chain = epoch->chains[node.chain];
  if (const auto refusal = Check(receipt, key, node, chain)) {
    const auto& [why, detail] = *refusal;
    // What is signed and next in turn was said, be it right or wrong.
    if (why != ReceiptRefusal::kSignature && why != ReceiptRefusal::kNumber) ++node.next_number;
    return Refuse(receipt, why, detail);
  }
  ++node.next_number;
  node.compute_micros += receipt.receipt.compute_micros;
  ++counters_.taken;
  ReceiptAnswer answer{receipt.receipt.epoch, receipt.receipt.number,
                       key_.Sign(CountersignedBytes(receipt)), ""};
  node.answers.emplace_back(receipt.signature, answer);
  if (node.answers.size() > kMostAnswers) node.answers.pop_front();
  TakeClaims(receipt, node, chain);
  return answer;
}

void ReceiptChecker::TakeClaims(const SignedReceipt& receipt, const NodeState& node,
                                ChainState& chain) {
  std::vector<ClaimPtr> claims;
  std::map<SequenceId, SequenceState*> changed;
  for (const ChunkClaim& chunk : receipt.receipt.chunks) {
    TakenClaim claim{chain.chain.stages[node.stage], receipt.receipt.number,
                     static_cast<uint32_t>(claims.size()), chunk};
    claims.push_back(std::make_shared<const TakenClaim>(std::move(claim)));
    SequenceState& sequence = chain.sequences.at(chunk.sequence);
    SequenceState::OfStage& stage = sequence.stages[node.stage];
    stage.claimed += chunk.tokens;
    if (!sequence.uneven && !stage.astray) stage.waiting.push_back(claims.back());
    changed[chunk.sequence] = &sequence;
    ++counters_.claims;
    counters_.tokens += chunk.tokens;
    counters_.bytes_in += chunk.inputs.bytes;
    counters_.bytes_out += chunk.outputs.bytes;
  }
  Tell([receipt, claims](ReceiptSink& sink) { sink.OnReceipt(receipt, claims); });
  for (const auto& [id, sequence] : changed) Match(chain, id, *sequence);
}

void ReceiptChecker::Match(ChainState& chain, SequenceId id, SequenceState& sequence) {
  if (sequence.uneven) {
    for (SequenceState::OfStage& stage : sequence.stages) stage.waiting.clear();
    sequence.settled.clear();
    return;
  }
  for (size_t stage = 0; stage < sequence.stages.size(); ++stage) {
    MatchStage(chain, stage, sequence);
  }
  Agree(chain, sequence);
  if (sequence.released && sequence.settled.empty() && chain.sequences.size() > kMostSequences) {
    chain.sequences.erase(id);
  }
}

// A stage closes its chunks of a sequence in the order in which all others do.
void ReceiptChecker::MatchStage(ChainState& chain, size_t stage, SequenceState& sequence) {
  SequenceState::OfStage& of = sequence.stages[stage];
  const size_t kind = chain.KindOf(stage);
  of.next = std::max(of.next, sequence.first);
  while (!of.waiting.empty() && !of.astray) {
    while (of.next - sequence.first < sequence.settled.size() &&
           !sequence.settled[of.next - sequence.first].has[kind]) {
      ++of.next;
    }
    if (of.next - sequence.first >= sequence.settled.size()) return;
    Settled& settled = sequence.settled[of.next++ - sequence.first];
    const ClaimPtr claim = std::move(of.waiting.front());
    of.waiting.pop_front();
    settled.claims[stage] = claim;
    if (claim->claim.first_position == settled.chunk.claim.first_position &&
        claim->claim.tokens == settled.chunk.claim.tokens) {
      Compare(settled, stage);
      continue;
    }
    // Other positions than all who computed them: from here on nothing is comparable.
    of.astray = true;
    of.waiting.clear();
    Dispute(settled, claim, nullptr);
  }
}

void ReceiptChecker::Compare(Settled& settled, size_t stage) {
  const std::vector<ClaimPtr>& claims = settled.claims;
  const ClaimPtr& claim = claims[stage];
  const bool first = stage == 0, last = stage + 1 == claims.size();
  const ChunkClaim& known = settled.chunk.claim;
  if (first && settled.chunk.inputs_known && known.inputs != claim->claim.inputs) {
    Dispute(settled, nullptr, claim);
  }
  if (last && settled.chunk.outputs_known && known.outputs != claim->claim.outputs) {
    Dispute(settled, claim, nullptr);
  }
  if (!first && claims[stage - 1] && claims[stage - 1]->claim.outputs != claim->claim.inputs) {
    Dispute(settled, claims[stage - 1], claim);
  }
  if (!last && claims[stage + 1] && claim->claim.outputs != claims[stage + 1]->claim.inputs) {
    Dispute(settled, claim, claims[stage + 1]);
  }
}

void ReceiptChecker::Dispute(Settled& settled, ClaimPtr upstream, ClaimPtr downstream) {
  settled.disputed = true;
  ++counters_.disputes;
  const ReceiptStage& stage = *(upstream ? upstream : downstream)->stage;
  EdgeDispute dispute;
  dispute.epoch = stage.assignment.epoch;
  dispute.chain = stage.chain;
  dispute.sequence = settled.chunk.claim.sequence;
  dispute.first_position = settled.chunk.claim.first_position;
  dispute.tokens = settled.chunk.claim.tokens;
  spdlog::warn(
      "epoch {}: sequence {}, positions {} to {}: {} and {} claim other bytes between them",
      dispute.epoch.v, dispute.sequence.v, dispute.first_position,
      dispute.first_position + dispute.tokens,
      upstream ? NodeName(upstream->stage->node) : "the coordinator",
      downstream ? NodeName(downstream->stage->node) : "the coordinator");
  dispute.upstream = std::move(upstream);
  dispute.downstream = std::move(downstream);
  Tell([dispute](ReceiptSink& sink) { sink.OnDispute(dispute); });
}

// Chunks of which every stage has made its claim are done with.
void ReceiptChecker::Agree(const ChainState& chain, SequenceState& sequence) {
  while (!sequence.settled.empty()) {
    const Settled& settled = sequence.settled.front();
    for (size_t stage = 0; stage < settled.claims.size(); ++stage) {
      if (settled.has[chain.KindOf(stage)] && !settled.claims[stage] &&
          !sequence.stages[stage].astray) {
        return;
      }
    }
    if (!settled.disputed) {
      for (const ClaimPtr& claim : settled.claims) {
        if (!claim) continue;
        ++counters_.agreed;
        Tell([claim](ReceiptSink& sink) { sink.OnAgreed(claim); });
      }
    }
    sequence.settled.pop_front();
    ++sequence.first;
  }
}

}  // namespace efedllm
