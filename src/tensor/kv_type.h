// The number formats that the KV cache keeps keys and values in.
#ifndef EFEDLLM_TENSOR_KV_TYPE_H_
#define EFEDLLM_TENSOR_KV_TYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace efedllm {

// The values stand in messages.
enum class KvType : uint8_t {
  kF32 = 0,
  kF16 = 1,   // rounded to nearest even, beyond ±65504 to that
  kQ8_0 = 2,  // blocks of 32 int8 and an f16 scale
};
inline constexpr size_t kKvTypeCount = 3;

// Values of one position and head that share a scale: a head's dimensions must be a multiple of it.
size_t KvBlockValues(KvType type);
// Of n values, n a multiple of KvBlockValues(type).
uint64_t KvBytes(KvType type, uint64_t n);

absl::string_view KvTypeName(KvType type);  // "f32", "f16", "q8_0"
std::optional<KvType> KvTypeFromName(absl::string_view name);

}  // namespace efedllm

#endif  // EFEDLLM_TENSOR_KV_TYPE_H_
