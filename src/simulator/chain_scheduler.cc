#include "simulator/chain_scheduler.h"

#include <algorithm>

#include "absl/time/time.h"
#include "common/check.h"

namespace efedllm {
namespace {

constexpr uint64_t kKvPage = 64;      // positions
constexpr uint32_t kMaxSpans = 4096;  // of a step; not what bounds a simulated one
constexpr uint64_t kShapeSteps = 64;  // a shape is made anew after so many steps at the latest

}  // namespace

uint64_t SimRequest::KvTokens() const {
  return (uint64_t{prompt_tokens} + output_tokens + kKvPage - 1) / kKvPage * kKvPage;
}

ChainScheduler::ChainScheduler(const Chain& chain, const SimRules& rules,
                               std::vector<SimRequest>& requests)
    // As many in flight as the coordinator's pipeline takes.
    : rules_{chain.stages.size(), 4 * chain.stages.size() + 4, rules.max_step_tokens, kMaxSpans},
      max_sequences_(rules.max_sequences),
      kv_tokens_(chain.kv_tokens),
      requests_(requests),
      times_(chain.stages.size()) {}

bool ChainScheduler::HasRoom(const SimRequest& request) const {
  return running_.size() < max_sequences_ && kv_reserved_ + request.KvTokens() <= kv_tokens_;
}

void ChainScheduler::Admit(uint32_t request) {
  kv_reserved_ += requests_[request].KvTokens();
  running_.push_back(request);
  work_.push_back({requests_[request].prompt_tokens, 0, 0, 0});
}

const StepShape& ChainScheduler::Shape() {
  StepDemand demand;
  for (const SequenceWork& work : work_) {
    const uint32_t ready = work.known - work.submitted;
    if (ready > 1) {
      demand.prompt_rows += ready;
    } else {
      ++demand.decoding;
    }
  }
  const bool same = demand.decoding == shaped_for_.decoding &&
                    (demand.prompt_rows > 0) == (shaped_for_.prompt_rows > 0);
  // The coordinator decides before every step; times change so little from one to the next that
  // this comes to the same.
  if (!same || last_step_ >= shaped_at_ + kShapeSteps || last_step_ < 2 * rules_.stages) {
    shape_ = ShapeSteps(demand, rules_, times_);
    shaped_for_ = demand;
    shaped_at_ = last_step_;
  }
  return shape_;
}

std::optional<SimStep> ChainScheduler::NextStep() {
  if (running_.empty() || in_flight_ >= rules_.max_in_flight) return std::nullopt;
  const StepShape& shape = Shape();
  if (in_flight_ >= shape.in_flight) return std::nullopt;
  const std::vector<PlannedSpan> spans = PlanStep(work_, rules_, shape);
  if (spans.empty()) return std::nullopt;
  SimStep step;
  ++last_step_;
  ++in_flight_;
  for (const PlannedSpan& span : spans) {
    SequenceWork& work = work_[span.sequence];
    step.parts.push_back({running_[span.sequence], work.submitted, span.tokens});
    step.work.AddSpan(work.submitted, span.tokens);
    work.submitted += span.tokens;
    work.last_step = last_step_;
    if (work.submitted == work.known) ++step.work.head_rows;
  }
  step.timings.reserve(rules_.stages);
  return step;
}

void ChainScheduler::Finish(const SimStep& step, double round_trip, double head_seconds) {
  CHECK(in_flight_ > 0);
  --in_flight_;
  times_.ObserveStep(step.work.rows, step.timings, absl::Seconds(round_trip));
  if (step.work.head_rows > 0) {
    times_.ObserveHead(step.work.head_rows, absl::Seconds(head_seconds));
  }
}

void ChainScheduler::TakeTokens(const SimStep& step, std::vector<uint32_t>& got_token) {
  for (const SimStep::Part& part : step.parts) {
    const auto at = std::find(running_.begin(), running_.end(), part.request);
    CHECK(at != running_.end());
    SequenceWork& work = work_[static_cast<size_t>(at - running_.begin())];
    if (part.first_position + part.tokens < work.known) continue;
    ++work.known;
    got_token.push_back(part.request);
  }
}

void ChainScheduler::Retire(uint32_t request) {
  const auto at = std::find(running_.begin(), running_.end(), request);
  CHECK(at != running_.end());
  work_.erase(work_.begin() + (at - running_.begin()));
  running_.erase(at);
  kv_reserved_ -= requests_[request].KvTokens();
}

}  // namespace efedllm
