#include "simulator/chain_scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "common/check.h"

namespace efedllm {
namespace {

constexpr uint64_t kKvPage = 64;      // positions
constexpr uint32_t kMaxSpans = 4096;  // of a step; not what bounds a simulated one
constexpr uint64_t kShapeSteps = 64;  // a shape is made anew after so many steps at the latest

uint64_t PagesFor(uint64_t positions) { return (positions + kKvPage - 1) / kKvPage; }

}  // namespace

ChainScheduler::ChainScheduler(const Chain& chain, const SimRules& rules,
                               std::vector<SimRequest>& requests, uint64_t& effort)
    // As many in flight as the coordinator's pipeline takes.
    : rules_{chain.stages.size(), 4 * chain.stages.size() + 4, rules.max_step_tokens, kMaxSpans},
      max_sequences_(rules.max_sequences),
      pages_(chain.kv_tokens / kKvPage),
      requests_(requests),
      effort_(effort),
      times_(chain.stages.size()) {}

bool ChainScheduler::Fits(const SimRequest& request) const {
  if (PagesFor(uint64_t{request.prompt_tokens} + request.output_tokens) > pages_) return false;
  if (running_.size() >= max_sequences_) return false;
  // Each that runs may soon need a page more, and those whose prompt is not computed yet need that.
  uint64_t wanted = PagesFor(request.known() + 1);
  for (const Running& other : running_) {
    wanted +=
        std::max(PagesFor(requests_[other.request].known() + 1), other.pages) - other.pages + 1;
  }
  return running_.empty() || held_pages_ + wanted <= pages_;
}

void ChainScheduler::Admit(uint32_t request) {
  const auto later = std::find_if(running_.begin(), running_.end(),
                                  [&](const Running& other) { return other.request > request; });
  work_.insert(work_.begin() + (later - running_.begin()), {requests_[request].known(), 0, 0, 0});
  running_.insert(later, {request, ++last_lease_, 0});
}

double ChainScheduler::load() const {
  return static_cast<double>(running_.size() + 1) * std::max(times_.Interval(1, 1), 1e-6);
}

size_t ChainScheduler::Find(uint32_t request) const {
  const auto found = std::find_if(running_.begin(), running_.end(), [&](const Running& running) {
    return running.request == request;
  });
  return static_cast<size_t>(found - running_.begin());
}

void ChainScheduler::Remove(size_t running) {
  held_pages_ -= running_[running].pages;
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(running));
  work_.erase(work_.begin() + static_cast<std::ptrdiff_t>(running));
}

std::vector<uint32_t> ChainScheduler::TakePreempted() { return std::exchange(preempted_, {}); }

// Pages for its first `length` positions, if need be by preempting the last that are not in the
// step. False: it waits, or had to go itself.
bool ChainScheduler::MakeRoom(uint32_t request, uint32_t length, const SimStep& next) {
  while (true) {
    Running& running = running_[Find(request)];
    const uint64_t pages = std::max(PagesFor(length), running.pages);
    if (held_pages_ + pages - running.pages <= pages_) {
      held_pages_ += pages - running.pages;
      running.pages = pages;
      return true;
    }
    size_t victim = running_.size();
    const auto in_step = [&](size_t i) {
      return std::any_of(next.parts.begin(), next.parts.end(), [&](const SimStep::Part& part) {
        return part.request == running_[i].request;
      });
    };
    while (victim > 0 && in_step(victim - 1)) --victim;
    if (victim-- == 0 || running_.size() == 1) return false;
    const uint32_t gone = running_[victim].request;
    preempted_.push_back(gone);
    Remove(victim);
    if (gone == request) return false;
  }
}

const StepShape& ChainScheduler::Shape() {
  effort_ += running_.size() / 16;
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
    effort_ += 8 * rules_.stages;
    shaped_for_ = demand;
    shaped_at_ = last_step_;
  }
  return shape_;
}

std::optional<SimStep> ChainScheduler::NextStep() {
  if (running_.empty() || in_flight_ >= rules_.max_in_flight) return std::nullopt;
  const StepShape& shape = Shape();
  if (in_flight_ >= shape.in_flight) return std::nullopt;
  // By request: making room may take others out.
  std::vector<std::pair<uint32_t, uint32_t>> planned;
  for (const PlannedSpan& span : PlanStep(work_, rules_, shape)) {
    planned.emplace_back(running_[span.sequence].request, span.tokens);
  }
  SimStep step;
  for (const auto& [request, tokens] : planned) {
    size_t at = Find(request);
    if (at == running_.size()) continue;  // it had to make room
    const uint32_t first = work_[at].submitted;
    if (!MakeRoom(request, first + tokens, step)) continue;
    at = Find(request);
    SequenceWork& work = work_[at];
    step.parts.push_back({request, running_[at].lease, first, tokens});
    step.work.AddSpan(first, tokens);
    work.submitted += tokens;
    work.last_step = last_step_ + 1;
    if (work.submitted == work.known) ++step.work.head_rows;
  }
  if (step.parts.empty()) return std::nullopt;
  ++last_step_;
  ++in_flight_;
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

std::vector<uint32_t> ChainScheduler::GetToken(const SimStep& step) const {
  std::vector<uint32_t> requests;
  for (const SimStep::Part& part : step.parts) {
    const size_t at = Find(part.request);
    // One that was preempted since gets it when it is computed again.
    if (at == running_.size() || running_[at].lease != part.lease) continue;
    if (part.first_position + part.tokens == work_[at].known) requests.push_back(part.request);
  }
  return requests;
}

void ChainScheduler::Extend(uint32_t request) { ++work_[Find(request)].known; }

void ChainScheduler::Retire(uint32_t request) { Remove(Find(request)); }

}  // namespace efedllm
