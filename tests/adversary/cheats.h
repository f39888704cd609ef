// Ways to cheat, as workers of tests do it: audits are to find every one of them.
#ifndef EFEDLLM_TESTS_ADVERSARY_CHEATS_H_
#define EFEDLLM_TESTS_ADVERSARY_CHEATS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/stage_tamper.h"

namespace efedllm {

// The names that MakeCheat knows, with a line about each.
struct CheatKind {
  std::string name, what;
};
const std::vector<CheatKind>& CheatKinds();

// InvalidArgument: no such cheat; which there are.
absl::StatusOr<StageTamper> MakeCheat(absl::string_view name);

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_ADVERSARY_CHEATS_H_
