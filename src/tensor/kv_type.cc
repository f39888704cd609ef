#include "tensor/kv_type.h"

namespace efedllm {
namespace {

struct Facts {
  absl::string_view name;
  size_t block_values, block_bytes;
};
constexpr Facts kFacts[kKvTypeCount] = {{"f32", 1, 4}, {"f16", 1, 2}, {"q8_0", 32, 34}};

const Facts& FactsOf(KvType type) { return kFacts[static_cast<size_t>(type)]; }

}  // namespace

size_t KvBlockValues(KvType type) { return FactsOf(type).block_values; }

uint64_t KvBytes(KvType type, uint64_t n) {
  return n / FactsOf(type).block_values * FactsOf(type).block_bytes;
}

absl::string_view KvTypeName(KvType type) { return FactsOf(type).name; }

std::optional<KvType> KvTypeFromName(absl::string_view name) {
  for (size_t i = 0; i < kKvTypeCount; ++i) {
    if (kFacts[i].name == name) return static_cast<KvType>(i);
  }
  return std::nullopt;
}

}  // namespace efedllm
