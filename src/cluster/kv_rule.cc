#include "cluster/kv_rule.h"

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

constexpr uint64_t kF32BytesPerToken = 16 << 10;

}  // namespace

KvType AutoKvType(const ModelConfig& config) {
  const uint64_t values = uint64_t{2} * config.layers * config.kv_heads * config.head_dim;
  return values * sizeof(float) <= kF32BytesPerToken ? KvType::kF32 : KvType::kF16;
}

absl::Status CheckKvType(const ModelConfig& config, KvType type) {
  if (config.head_dim % KvBlockValues(type) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "keys and values can't be kept as ", KvTypeName(type), ": the model's heads have ",
      config.head_dim, " dimensions, which is no multiple of ", KvBlockValues(type)));
}

}  // namespace efedllm
