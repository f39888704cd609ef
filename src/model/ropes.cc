#include "model/ropes.h"

#include <utility>

#include "common/check.h"
#include "common/status_macros.h"
#include "model/weights.h"

namespace efedllm {
namespace {

absl::StatusOr<std::vector<double>> Frequencies(const ModelConfig& config,
                                                absl::Span<const float> factors) {
  const RopeConfig& rope = config.rope;
  if (rope.scaling == RopeScaling::kYarn) {
    return YarnFrequencies(rope.dims, rope.base,
                           {.factor = rope.factor,
                            .original_context = rope.original_context,
                            .beta_fast = rope.beta_fast,
                            .beta_slow = rope.beta_slow});
  }
  // To divide a position by the scale is to divide every angle by it.
  std::vector<float> divisors(rope.dims / 2,
                              rope.scaling == RopeScaling::kLinear ? rope.factor : 1.0f);
  if (!factors.empty()) {
    CHECK(factors.size() == divisors.size());
    RETURN_IF_ERROR(CheckRopeFactors(factors));
    for (size_t i = 0; i < divisors.size(); ++i) divisors[i] *= factors[i];
  }
  return RopeFrequencies(rope.dims, rope.base, divisors);
}

}  // namespace

absl::StatusOr<std::vector<Rope>> MakeRopes(const ModelConfig& config,
                                            absl::Span<const float> factors) {
  ASSIGN_OR_RETURN(std::vector<double> frequencies, Frequencies(config, factors));
  std::vector<Rope> ropes;
  ropes.emplace_back(std::move(frequencies), config.traits().rope_halves, config.rope.magnitude);
  if (const float base = config.traits().local_rope_base; base > 0) {
    ropes.emplace_back(RopeFrequencies(config.rope.dims, base, {}), config.traits().rope_halves,
                       1.0f);
  }
  return ropes;
}

uint32_t RopeOfLayer(const ModelConfig& config, uint32_t layer) {
  return config.HasWindow(layer) && config.traits().local_rope_base > 0 ? 1 : 0;
}

}  // namespace efedllm
