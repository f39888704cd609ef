// The one table of kernels. An entry of any table equals the scalar entry bit for bit, for finite
// input; docs/numerics.md writes the order of operations down. Plain C types only: per-ISA files
// are leaf code.
#ifndef EFEDLLM_LAYERS_KERNELS_KERNEL_TABLE_H_
#define EFEDLLM_LAYERS_KERNELS_KERNEL_TABLE_H_

#include <cstddef>
#include <cstdint>

#include "tensor/quant_format.h"

namespace efedllm {

inline constexpr size_t kQuantValues = 32;

// 32 activations as int8: value k is q[k]·d, |q[k]| <= 127. The sums take a weight's zero point out
// of a product.
struct QuantBlock {
  float d;
  int32_t offset;  // -128 times the sum of all
  int16_t sum[2];  // of q[0, 16) and q[16, 32)
  int8_t q[kQuantValues];
};

// Where a matrix product reads and writes. Groups of 16 rows (layers/packed_matrix.h) times
// columns, a column being one row of activations.
struct MatmulArgs {
  const uint8_t* w;    // the first group
  size_t group_bytes;  // from one group to the next
  size_t rows;         // output rows, at most 16 of them in a group
  size_t k;            // inputs
  const void* x;       // [columns] of x_stride: f32 or QuantBlock, as the weights want
  size_t x_stride;     // floats or blocks
  size_t columns;
  float* y;         // y[c * y_stride + r]
  size_t y_stride;  // floats
};
using MatmulKernel = void (*)(const MatmulArgs&);

// In the order of kQuantFormats.
struct QuantMatmuls {
  MatmulKernel of[kQuantFormatCount];
};

inline constexpr size_t kMaxAttendHeads = 8;

// Query heads over the pages of the kv head that they share (layers/kv_cache.h).
struct AttendArgs {
  const float* q;             // [heads, head_dim]
  const float* const* pages;  // of 64 positions
  size_t k_offset, v_offset;  // floats
  size_t heads;               // 1 to kMaxAttendHeads
  size_t head_dim;
  size_t positions;  // that are seen, from 0 on; at least 1
  float scale;
  float* out;  // [heads, head_dim]
};

struct KernelTable {
  const char* name;

  // f32 activations.
  MatmulKernel matmul_f32, matmul_f16, matmul_bf16;
  // QuantBlock activations.
  const QuantMatmuls* matmul_quant;

  // x: [32 * blocks].
  void (*quantize)(const float* x, size_t blocks, QuantBlock* out);
  // x, weight, y: [n]. y may be x.
  void (*rms_norm)(const float* x, const float* weight, size_t n, float epsilon, float* y);
  // x: [heads * head_dim]; the first dims of each head turn. cos, sin: [dims], see layers/rope.h.
  void (*rope)(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
               const float* sin);
  void (*attend)(const AttendArgs&);
  // gate = silu(gate) · up.
  void (*silu_mul)(float* gate, const float* up, size_t n);
  // x += y.
  void (*add)(float* x, const float* y, size_t n);
  // y = e^x.
  void (*exp)(const float* x, size_t n, float* y);
};

// The product with weights of a type: float types want f32 activations, the others QuantBlocks.
MatmulKernel MatmulFor(const KernelTable& table, DType dtype);

const KernelTable& ScalarKernels();
// Null: this build or this CPU has none.
const KernelTable* Avx2Kernels();
const KernelTable* Avx512Kernels();

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KERNELS_KERNEL_TABLE_H_
