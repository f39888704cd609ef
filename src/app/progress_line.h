// How far a long command is: a line on the terminal.
#ifndef EFEDLLM_APP_PROGRESS_LINE_H_
#define EFEDLLM_APP_PROGRESS_LINE_H_

#include "absl/strings/string_view.h"

namespace efedllm {

// Each text writes over the one before it, and the last is wiped; nothing where stderr is something
// else than a terminal. Not thread-safe.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // share: 0 to 1.
  void Show(double share, absl::string_view what) const;

 private:
  const bool terminal_;
};

}  // namespace efedllm

#endif  // EFEDLLM_APP_PROGRESS_LINE_H_
