// libs: efedllm_incentive
// Any bytes as a scenario: refused with a message, or one within its bounds.
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "common/check.h"
#include "incentive/population.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace efedllm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<PopulationScenario> scenario = ParsePopulationScenario(text);
  if (!scenario.ok()) {
    CHECK(!scenario.status().message().empty());
    return 0;
  }
  uint64_t machines = 0;
  for (const PopulationGroup& group : scenario->groups) {
    CHECK(group.machines > 0 && group.every > 0 && group.keys > 0 && !group.name.empty());
    machines += group.machines;
  }
  CHECK(machines * scenario->rounds * scenario->chunks_per_round <= 50'000'000);
  return 0;
}
