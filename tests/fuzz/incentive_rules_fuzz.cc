// libs: efedllm_incentive
// Any bytes as the file of the incentive's rules, or as the ledger's text of them: refused with a
// message, or valid rules that their own texts give back.
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "common/check.h"
#include "incentive/incentive_rules.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace efedllm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto canonical = ParseCanonicalIncentiveRules(text); canonical.ok()) {
    CHECK(CanonicalIncentiveRules(*canonical) == text);
  }
  const absl::StatusOr<IncentiveRules> rules = ParseIncentiveRules(text);
  if (!rules.ok()) {
    CHECK(!rules.status().message().empty());
    return 0;
  }
  CHECK(ValidateIncentiveRules(*rules).ok());
  const auto again = ParseIncentiveRules(IncentiveRulesToml(*rules, /*commented_out=*/false));
  CHECK(again.ok() && *again == *rules);
  return 0;
}
