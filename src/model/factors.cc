#include "model/factors.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

constexpr absl::string_view kSuffixA = ".factor_a", kSuffixB = ".factor_b";

}  // namespace

std::string FactorAName(absl::string_view part) { return absl::StrCat(part, kSuffixA); }
std::string FactorBName(absl::string_view part) { return absl::StrCat(part, kSuffixB); }

bool HasFactors(const ModelFile& file) {
  return std::any_of(file.tensors().begin(), file.tensors().end(), [](const ModelTensor& tensor) {
    return absl::EndsWith(tensor.name, kSuffixA) || absl::EndsWith(tensor.name, kSuffixB);
  });
}

absl::Status CheckFactorsVersion(const ModelFile& file) {
  if (file.FindValue(kFactorsVersionKey) == nullptr && !HasFactors(file)) return absl::OkStatus();
  const absl::StatusOr<uint64_t> version = file.GetUint(kFactorsVersionKey);
  if (version.ok() && *version == kFactorsVersion) return absl::OkStatus();
  const std::string found = version.ok() ? absl::StrCat("version ", *version) : "no known version";
  return absl::UnimplementedError(
      absl::StrCat("the model's matrices stand as low-rank factors in a form of ", found, " (",
                   kFactorsVersionKey, "); this build knows version ", kFactorsVersion,
                   ": update eFedLLM, or compress the model again"));
}

}  // namespace efedllm
