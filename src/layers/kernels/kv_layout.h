// Where a page (layers/kv_cache.h) keeps the keys and the values of one layer's kv head. Static
// functions only: per-ISA files compile their own copies.
#ifndef EFEDLLM_LAYERS_KERNELS_KV_LAYOUT_H_
#define EFEDLLM_LAYERS_KERNELS_KV_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "tensor/kv_type.h"

namespace efedllm {

inline constexpr size_t kKvPage = 64;   // positions
inline constexpr size_t kKvBlock = 32;  // values of Q8_0

// Keys: numbers [head_dim][64] (lanes are positions); Q8_0 has int8 and behind them the blocks'
// f16 scales, [head_dim / 32][64]. Values: numbers [64][head_dim] (lanes are dimensions); Q8_0 has
// int8 and behind them the scales, [64][head_dim / 32].
[[maybe_unused]] static constexpr size_t KvNumberBytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1;
}
// Where the scales begin.
[[maybe_unused]] static constexpr size_t KvScalesAt(size_t head_dim) { return kKvPage * head_dim; }

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KERNELS_KV_LAYOUT_H_
