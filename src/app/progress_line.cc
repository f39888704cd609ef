#include "app/progress_line.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

namespace efedllm {

ProgressLine::ProgressLine() : terminal_(isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() {
  if (terminal_) std::fprintf(stderr, "\r\033[K");
}

void ProgressLine::Show(double share, absl::string_view what) const {
  constexpr int kWidth = 24;
  if (!terminal_) return;
  const double clamped = std::clamp(share, 0.0, 1.0);
  const int done = static_cast<int>(std::lround(clamped * kWidth));
  std::fprintf(stderr, "\r\033[K[%s%s] %3.0f %%  %s",
               std::string(static_cast<size_t>(done), '#').c_str(),
               std::string(static_cast<size_t>(kWidth - done), '.').c_str(), 100 * clamped,
               std::string(what).c_str());
}

}  // namespace efedllm
