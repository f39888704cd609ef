#include "coordinator/trace_store.h"

#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"

namespace efedllm {

void TraceStore::Record(absl::string_view request, StepTrace trace) {
  if (request.empty()) return;
  absl::MutexLock lock(&mu_);
  const auto known = by_name_.find(request);
  if (known == by_name_.end()) {
    RequestTrace begun;
    begun.request = std::string(request);
    requests_.push_back(std::move(begun));
    by_name_.emplace(request, std::prev(requests_.end()));
  }
  RequestTrace& kept = known == by_name_.end() ? requests_.back() : *known->second;
  if (kept.steps.size() >= kMaxSteps) {
    ++kept.steps_left_out;
    return;
  }
  kept.steps.push_back(std::move(trace));
  ++steps_;
  MakeRoom();
}

// The oldest go. One alone is within all bounds.
void TraceStore::MakeRoom() {
  while (requests_.size() > kMaxRequests || steps_ > kMaxStepsTogether) {
    steps_ -= requests_.front().steps.size();
    by_name_.erase(requests_.front().request);
    requests_.pop_front();
  }
}

absl::StatusOr<RequestTrace> TraceStore::Find(absl::string_view request) const {
  absl::MutexLock lock(&mu_);
  if (requests_.empty()) {
    return absl::NotFoundError("no request has run since the coordinator started; send one first");
  }
  if (request.empty()) return requests_.back();
  const auto known = by_name_.find(request);
  if (known != by_name_.end()) return *known->second;
  return absl::NotFoundError(
      absl::StrCat("no trace of request '", Printable(request, 100), "': those of the last ",
                   requests_.size(), " requests are kept, the latest is ", requests_.back().request,
                   "; a request's id is the \"id\" of its reply"));
}

}  // namespace efedllm
