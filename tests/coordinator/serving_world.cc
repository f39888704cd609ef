#include "coordinator/serving_world.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "layers/compute.h"

namespace efedllm {

ServedModel& Seedling() {
  static Compute& compute = *new Compute(*Compute::Create(1, "auto"));
  static ServedModel& model =
      *ServedModel::Load(EFEDLLM_SOURCE_DIR "/models/seedling/seedling-q8_0.gguf", compute)
           ->release();
  return model;
}

GenerationInput Ask(const std::string& prompt, uint32_t max_tokens) {
  GenerationInput input;
  input.prompt = Seedling().tokenizer->Encode(prompt, {.add_special = true, .parse_special = true});
  input.max_tokens = max_tokens;
  input.sampling.temperature = 0;
  input.ignore_eos = true;
  return input;
}

Outcome Collect(Generation& generation, absl::Duration timeout) {
  Outcome outcome;
  const absl::Time deadline = absl::Now() + timeout;
  while (!generation.done()) {
    auto event = generation.Next(deadline - absl::Now());
    if (!event.has_value()) {
      outcome.status = absl::DeadlineExceededError("the test waited too long");
      return outcome;
    }
    outcome.text += event->text;
    for (ScoredToken& scored : event->prompt) outcome.prompt.push_back(std::move(scored));
    if (event->token.has_value()) {
      outcome.tokens.push_back(event->token->token);
      outcome.scored.push_back(*std::move(event->token));
    }
    if (event->finish.has_value()) outcome.finish = event->finish;
    if (!event->status.ok()) outcome.status = event->status;
  }
  return outcome;
}

FakePipeline::FakePipeline(size_t stages, uint64_t kv_tokens, size_t chains) {
  capacity_.epoch = Epoch{1};
  capacity_.chains.assign(chains, {stages, kv_tokens});
  capacity_.limits.max_position = 1024;
}

absl::StatusOr<PipelineCapacity> FakePipeline::Capacity() const {
  absl::MutexLock lock(&mu_);
  if (!unavailable_.empty()) return absl::UnavailableError(unavailable_);
  return capacity_;
}

void FakePipeline::Check(bool ok, const std::string& what) {
  if (!ok) violations_.push_back(what);
}

// Chains know nothing of each other's sequences.
Step OfChain(Step step, size_t chain) {
  const uint64_t first = uint64_t{chain} << 40;
  for (SequenceTrim& trim : step.trims) trim.sequence.v += first;
  for (SequenceSpan& span : step.spans) span.sequence.v += first;
  for (SequenceFork& fork : step.forks) {
    fork.sequence.v += first;
    fork.parent.v += first;
  }
  return step;
}

absl::Status FakePipeline::Submit(Step step, size_t chain, Matrix hidden) {
  step = OfChain(std::move(step), chain);
  absl::MutexLock lock(&mu_);
  if (!unavailable_.empty() || step.epoch != capacity_.epoch) {
    return absl::AbortedError("this epoch is over");
  }
  Check(steps_.empty() || steps_.back().epoch != step.epoch || steps_.back().id < step.id,
        "step ids count up");
  Check(!step.spans.empty() || !step.trims.empty() || !step.forks.empty() || step.forget_others,
        "a step does something");
  const bool has_rows = !step.replay() || step.replay_stages.front() == 0;
  Check(hidden.rows() == (has_rows ? step.tokens() : 0), "one row per token");
  Check(step.tokens() <= capacity_.limits.max_tokens, "max_tokens");
  Check(step.spans.size() <= capacity_.limits.max_spans, "max_spans");
  if (step.forget_others) {
    absl::erase_if(kv_, [&](const auto& kv) {
      if (kv.first.v >> 40 != chain) return false;
      return std::none_of(step.trims.begin(), step.trims.end(),
                          [&](const SequenceTrim& trim) { return trim.sequence == kv.first; });
    });
  }
  for (const SequenceTrim& trim : step.trims) Trim(trim);
  for (const SequenceFork& fork : step.forks) {
    Check(!lost_ || (*lost_)[fork.parent] >= fork.tokens, "lost stages have a fork's parent");
    if (lost_) (*lost_)[fork.sequence] = fork.tokens;
    const auto parent = kv_.find(fork.parent);
    Check(fork.tokens > 0 && parent != kv_.end() && parent->second.states.size() >= fork.tokens,
          "a fork's parent holds its tokens");
    Check(!kv_.contains(fork.sequence), "a fork's child holds no KV");
    FakeKv child = parent->second;
    child.states.resize(fork.tokens);
    child.pages.resize(fork.tokens / 64);  // a page that it shares in part, it copies
    child.FitPages();
    kv_[fork.sequence] = std::move(child);
  }
  size_t row = 0;
  for (const SequenceSpan& span : step.spans) {
    if (lost_) {
      uint32_t& length = (*lost_)[span.sequence];
      Check(length >= span.first_position, "no gap in the KV of lost stages");
      length = span.first_position + span.tokens;
    }
    if (step.replay()) {
      Check(kv_[span.sequence].states.size() >= span.first_position + span.tokens,
            "a replay is of what the other stages hold");
    } else {
      Compute(span, row, hidden);
    }
    row += span.tokens;
  }
  Check(KvTokens(chain) <= capacity_.chains[chain].kv_tokens, "KV memory");

  StepResult result;
  result.epoch = step.epoch;
  result.chain = chain;
  result.id = step.id;
  result.returned = absl::Now();
  result.status = std::exchange(fail_next_, absl::OkStatus());
  if (step.replay() && !fail_replays_.ok()) result.status = fail_replays_;
  if (result.status.ok() && !step.replay()) result.hidden = std::move(hidden);
  results_.push_back(std::move(result));
  steps_.push_back(std::move(step));
  most_in_flight_ = std::max(most_in_flight_, results_.size());
  Check(results_.size() <= capacity_.chains.size() * MaxStepsInFlight(capacity_.chains[0]),
        "steps in flight");
  if (absl::IsAborted(results_.back().status)) AbortAll();
  return absl::OkStatus();
}

void FakePipeline::Trim(const SequenceTrim& trim) {
  const auto sequence = kv_.find(trim.sequence);
  if (sequence == kv_.end()) return;
  if (trim.length == 0) {
    kv_.erase(sequence);
  } else if (sequence->second.states.size() > trim.length) {
    sequence->second.states.resize(trim.length);
    sequence->second.FitPages();
  }
}

void FakePipeline::FakeKv::FitPages() {
  const size_t before = pages.size();
  pages.resize((states.size() + 63) / 64);
  for (size_t i = before; i < pages.size(); ++i) pages[i] = std::make_shared<int>(0);
}

uint64_t FakePipeline::KvTokens(size_t chain) const {
  absl::flat_hash_set<int*> pages;
  for (const auto& [id, kv] : kv_) {
    if (id.v >> 40 != chain) continue;
    for (const auto& page : kv.pages) pages.insert(page.get());
  }
  return pages.size() * 64;
}

void FakePipeline::Compute(const SequenceSpan& span, size_t row, Matrix& hidden) {
  auto& states = kv_[span.sequence].states;
  Check(span.tokens > 0, "spans have tokens");
  Check(span.first_position <= states.size(), "no gap in the KV");
  states.resize(std::min<size_t>(states.size(), span.first_position));
  for (uint32_t i = 0; i < span.tokens; ++i) {
    float* x = hidden.row(row + i);
    if (!states.empty()) {
      const std::vector<float>& before = states.back();
      for (size_t c = 0; c < hidden.cols(); ++c) {
        x[c] += 0.9f * before[(c + 1) % hidden.cols()];
      }
    }
    states.emplace_back(x, x + hidden.cols());
  }
  kv_[span.sequence].FitPages();
}

std::optional<StepResult> FakePipeline::NextResult(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(this, &FakePipeline::HasResult), timeout);
  if (!HasResult()) return std::nullopt;
  std::optional<StepResult> result(std::move(results_.front()));
  results_.pop_front();
  return result;
}

void FakePipeline::SetActiveSequences(size_t count) {
  absl::MutexLock lock(&mu_);
  active_ = count;
}

void FakePipeline::Hold(bool hold) {
  absl::MutexLock lock(&mu_);
  hold_ = hold;
}

void FakePipeline::FailNext(absl::Status status) {
  absl::MutexLock lock(&mu_);
  fail_next_ = std::move(status);
}

void FakePipeline::FailReplays(absl::Status status) {
  absl::MutexLock lock(&mu_);
  fail_replays_ = std::move(status);
}

Epoch FakePipeline::epoch() const {
  absl::MutexLock lock(&mu_);
  return capacity_.epoch;
}

void FakePipeline::AbortAll() {
  for (StepResult& result : results_) {
    result.status = absl::AbortedError("a worker was lost");
    result.hidden = Matrix();
  }
  kv_.clear();
  lost_.reset();
  capacity_.chains[0].continues.reset();
  ++capacity_.epoch.v;
}

void FakePipeline::ContinueEpoch(std::vector<uint32_t> lost) {
  absl::MutexLock lock(&mu_);
  auto kept = kv_;
  const Epoch before = capacity_.epoch;
  AbortAll();
  kv_ = std::move(kept);
  if (!lost.empty()) lost_.emplace();
  capacity_.chains[0].continues = {before, 0, std::move(lost)};
}

void FakePipeline::EndEpoch(std::string unavailable) {
  absl::MutexLock lock(&mu_);
  unavailable_ = std::move(unavailable);
  AbortAll();
}

void FakePipeline::BeginEpoch(size_t stages) {
  absl::MutexLock lock(&mu_);
  unavailable_.clear();
  ++capacity_.epoch.v;
  capacity_.chains[0].stages = stages;
}

std::vector<std::string> FakePipeline::violations() const {
  absl::MutexLock lock(&mu_);
  return violations_;
}

std::vector<Step> FakePipeline::steps() const {
  absl::MutexLock lock(&mu_);
  return steps_;
}

size_t FakePipeline::sequences() const {
  absl::MutexLock lock(&mu_);
  return kv_.size();
}

uint64_t FakePipeline::kv_tokens() const {
  absl::MutexLock lock(&mu_);
  uint64_t sum = 0;
  for (size_t i = 0; i < capacity_.chains.size(); ++i) sum += KvTokens(i);
  return sum;
}

size_t FakePipeline::active() const {
  absl::MutexLock lock(&mu_);
  return active_;
}

size_t FakePipeline::most_in_flight() const {
  absl::MutexLock lock(&mu_);
  return most_in_flight_;
}

FakeExchange::FakeExchange(std::string method, std::string path, std::string body,
                           HttpHeaders headers) {
  request_.method = std::move(method);
  request_.path = std::move(path);
  request_.body = std::move(body);
  request_.headers = std::move(headers);
}

void FakeExchange::Stream(HttpReply head, StreamBody body) {
  reply_ = std::move(head);
  streamed_ = true;
  body_ = std::move(body);
}

bool FakeExchange::Write(absl::string_view bytes) {
  if (writes_left_ == 0) {
    gone = true;
    return false;
  }
  --writes_left_;
  absl::StrAppend(&written_, bytes);
  return true;
}

void FakeExchange::RunStream(size_t hang_up_after) {
  CHECK(streamed_);
  writes_left_ = hang_up_after;
  body_(*this);
  body_ = nullptr;
}

std::optional<std::string> FakeExchange::header(const std::string& name) const {
  for (const auto& [key, value] : reply_.headers) {
    if (key == name) return value;
  }
  return std::nullopt;
}

std::vector<std::string> FakeExchange::events() const {
  std::vector<std::string> events;
  for (absl::string_view event : absl::StrSplit(written_, "\n\n", absl::SkipEmpty())) {
    CHECK(event.substr(0, 6) == "data: ");
    events.emplace_back(event.substr(6));
  }
  return events;
}

}  // namespace efedllm
