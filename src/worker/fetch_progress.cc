#include "worker/fetch_progress.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/units.h"

namespace efedllm {
namespace {

constexpr absl::Duration kReportInterval = absl::Milliseconds(300);
constexpr absl::Duration kLogInterval = absl::Seconds(5);

uint64_t Percent(const FetchBytes& bytes) {
  return bytes.total == 0 ? 100 : bytes.held * 100 / bytes.total;
}

}  // namespace

std::string DescribeProgress(const FetchBytes& bytes, absl::Duration elapsed) {
  const double seconds = std::max(absl::ToDoubleSeconds(elapsed), 1e-3);
  const auto rate = static_cast<uint64_t>(static_cast<double>(bytes.fetched) / seconds);
  return absl::StrCat(Percent(bytes), " %, ", FormatBytes(bytes.held), " of ",
                      FormatBytes(bytes.total), ", ", FormatBytes(rate), "/s");
}

FetchProgress::FetchProgress(uint64_t total, bool draw_bar,
                             std::function<void(const FetchBytes&)> report)
    : draw_bar_(draw_bar), report_(std::move(report)), start_(absl::Now()) {
  bytes_.total = total;
  last_report_ = start_;
  last_log_ = start_;
}

void FetchProgress::Add(uint64_t bytes, bool fetched) {
  FetchBytes now;
  {
    absl::MutexLock lock(&mu_);
    bytes_.held += bytes;
    if (fetched) bytes_.fetched += bytes;
    const absl::Time time = absl::Now();
    if (time - last_report_ < kReportInterval) return;
    last_report_ = time;
    now = bytes_;
    if (draw_bar_) {
      DrawBar();
    } else if (time - last_log_ >= kLogInterval) {
      last_log_ = time;
      spdlog::info("fetching weights: {}", DescribeProgress(now, time - start_));
    }
  }
  report_(now);
}

void FetchProgress::DrawBar() {
  constexpr size_t kWidth = 30;
  const size_t full = std::min<size_t>(Percent(bytes_) * kWidth / 100, kWidth);
  const std::string line =
      absl::StrCat("\r[", std::string(full, '#'), std::string(kWidth - full, '.'), "] ",
                   DescribeProgress(bytes_, elapsed()), "\x1b[K");
  std::fputs(line.c_str(), stderr);
}

void FetchProgress::Finish() {
  absl::MutexLock lock(&mu_);
  if (draw_bar_) std::fputs("\r\x1b[K", stderr);
}

FetchBytes FetchProgress::bytes() const {
  absl::MutexLock lock(&mu_);
  return bytes_;
}

absl::Duration FetchProgress::elapsed() const { return absl::Now() - start_; }

}  // namespace efedllm
