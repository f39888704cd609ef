#include "coordinator/openai_load.h"

#include <algorithm>
#include <utility>

namespace efedllm {
namespace {

constexpr absl::Duration kSoon = absl::Seconds(1);
constexpr absl::Duration kLongestRetry = absl::Seconds(60);

}  // namespace

LoadMeter::Share::Share(LoadMeter& meter, Turn turn, size_t sequences)
    : meter_(meter), turn_(std::move(turn)), sequences_(sequences) {
  meter_.Change(turn_, sequences_, 0);
}

LoadMeter::Share::~Share() { meter_.Change(turn_, 0, sequences_); }

void LoadMeter::Share::Finish(absl::Time now, const SchedulerStats& stats) {
  if (sequences_ == 0) return;
  --sequences_;
  meter_.Change(turn_, 0, 1);
  absl::MutexLock lock(&meter_.mu_);
  if (stats.queued == 0) return meter_.finishes_.clear();
  meter_.finishes_.push_back(now);
  if (meter_.finishes_.size() > kFinishes) meter_.finishes_.pop_front();
}

void LoadMeter::Change(const Turn& turn, size_t more, size_t less) {
  absl::MutexLock lock(&mu_);
  auto& owners = here_[turn.priority];
  size_t& count = owners[turn.owner];
  count += more;
  count -= std::min(count, less);
  if (count == 0) owners.erase(turn.owner);
  if (owners.empty()) here_.erase(turn.priority);
}

std::optional<double> LoadMeter::PerSecond(absl::Time now) const {
  if (finishes_.size() < kEnough) return std::nullopt;
  const double seconds = absl::ToDoubleSeconds(now - finishes_.front());
  if (!(seconds > 0)) return std::nullopt;
  return static_cast<double>(finishes_.size() - 1) / seconds;
}

std::optional<absl::Duration> LoadMeter::WaitOf(const Turn& turn, absl::Time now,
                                                const SchedulerStats& stats) const {
  if (stats.queued == 0) return absl::ZeroDuration();
  absl::MutexLock lock(&mu_);
  const std::optional<double> rate = PerSecond(now);
  if (!rate.has_value()) return std::nullopt;
  // Higher priorities go first; among equals each owner gets as much as this one.
  size_t before = 0;
  for (const auto& [priority, owners] : here_) {
    if (priority < turn.priority) continue;
    const auto own = owners.find(turn.owner);
    const size_t fair = own == owners.end() ? 1 : own->second + 1;
    for (const auto& [owner, count] : owners) {
      before += priority > turn.priority ? count : std::min(count, fair);
    }
  }
  // Some of those run already.
  const double waiting =
      static_cast<double>(stats.queued) / static_cast<double>(stats.queued + stats.running);
  return absl::Seconds((static_cast<double>(before) * waiting + 1) / *rate);
}

absl::Duration LoadMeter::RetryFullQueue(absl::Time now, const SchedulerStats& stats) const {
  absl::MutexLock lock(&mu_);
  const std::optional<double> rate = PerSecond(now);
  if (!rate.has_value()) return kSoon;
  return std::clamp(absl::Seconds(static_cast<double>(stats.queued) / 2 / *rate), kSoon,
                    kLongestRetry);
}

absl::Duration RetryOutage(absl::string_view state, absl::Duration outage) {
  if (outage < absl::Seconds(10) && state != "waiting") return 2 * kSoon;
  if (state == "loading") return absl::Seconds(5);
  return outage < absl::Seconds(60) ? absl::Seconds(10) : absl::Seconds(30);
}

}  // namespace efedllm
