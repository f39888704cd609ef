#include "net/link_prober.h"

#include <algorithm>
#include <utility>

#include "common/clock.h"

namespace efedllm {
namespace {

constexpr size_t kMaxWaiting = 256;
constexpr absl::Duration kLookForPause = absl::Milliseconds(20);

}  // namespace

LinkProber::LinkProber(const Transport& transport, LinkProberOptions options, Done done)
    : transport_(transport), options_(std::move(options)), done_(std::move(done)) {
  thread_ = std::thread([this] { Loop(); });
}

LinkProber::~LinkProber() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    if (probe_ != nullptr) probe_->Cancel();
  }
  thread_.join();
}

void LinkProber::Measure(const std::vector<Target>& targets) {
  absl::MutexLock lock(&mu_);
  for (const Target& target : targets) {
    const auto waiting = std::find_if(waiting_.begin(), waiting_.end(),
                                      [&](const Target& t) { return t.node == target.node; });
    if (waiting != waiting_.end()) {
      *waiting = target;
    } else if (waiting_.size() < kMaxWaiting) {
      waiting_.push_back(target);
    }
  }
}

bool LinkProber::AwaitPause() {
  const absl::Time until = SteadyNow() + options_.patience;
  while (options_.busy && options_.busy() && SteadyNow() < until) {
    absl::MutexLock lock(&mu_);
    if (mu_.AwaitWithTimeout(absl::Condition(&stopping_), kLookForPause)) return false;
  }
  return true;
}

std::optional<LinkProber::Target> LinkProber::Next() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &LinkProber::HasWork));
  if (stopping_) return std::nullopt;
  Target next = std::move(waiting_.front());
  waiting_.pop_front();
  return next;
}

void LinkProber::Loop() {
  while (const std::optional<Target> target = Next()) {
    if (!AwaitPause()) return;
    LinkProbe probe(transport_, target->address, target->node);
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
      probe_ = &probe;
    }
    const absl::StatusOr<LinkMeasurement> measured = probe.Measure();
    {
      absl::MutexLock lock(&mu_);
      probe_ = nullptr;
      if (stopping_) return;
    }
    done_(target->node, measured);
  }
}

}  // namespace efedllm
