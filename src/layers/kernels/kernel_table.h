// The one table of kernels. An entry of any table equals the scalar entry bit for bit, for finite
// input; docs/numerics.md writes the order of operations down. Plain C types only: per-ISA files
// are leaf code.
#ifndef EFEDLLM_LAYERS_KERNELS_KERNEL_TABLE_H_
#define EFEDLLM_LAYERS_KERNELS_KERNEL_TABLE_H_

#include <cstddef>
#include <cstdint>

#include "tensor/kv_type.h"
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

// One query head of one token: out = softmax over the positions [first, end) that it sees.
struct AttendQuery {
  const float* q;       // [head_dim]
  float* out;           // [head_dim]
  uint32_t first, end;  // first < end
};

// Queries of one sequence that read the same kv head, to share its loads. Each one's result is as
// if it were alone.
struct AttendArgs {
  KvType type;  // of the pages' contents, see kernels/kv_layout.h
  const AttendQuery* queries;
  size_t count;                 // 1 to kMaxAttendQueries
  const uint8_t* const* pages;  // of 64 positions, at least up to the last end
  size_t k_offset, v_offset;    // bytes
  size_t head_dim;
  float scale;
  float soft_cap;  // scores become soft_cap * tanh(score / soft_cap); 0: they don't
};
inline constexpr size_t kMaxAttendQueries = 32;

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
  // As rope, but element i of a head pairs with element i + dims/2 (NeoX).
  void (*rope_halves)(float* x, size_t heads, size_t head_dim, size_t dims, const float* cos,
                      const float* sin);
  void (*attend)(const AttendArgs&);
  // f16 bits of x, to nearest even; beyond ±65504: ±65504.
  void (*to_f16)(const float* x, size_t n, uint16_t* out);
  // gate = silu(gate) · up.
  void (*silu_mul)(float* gate, const float* up, size_t n);
  // gate = gelu(gate) · up, the tanh approximation.
  void (*gelu_mul)(float* gate, const float* up, size_t n);
  // x = cap · tanh(x / cap).
  void (*soft_cap)(float* x, size_t n, float cap);
  // x += y.
  void (*add)(float* x, const float* y, size_t n);
  // y = fma(x, scale, y).
  void (*add_scaled)(float* y, const float* x, size_t n, float scale);
  // y = e^x.
  void (*exp)(const float* x, size_t n, float* y);
};

// The product with weights of a type: float types want f32 activations, the others QuantBlocks.
MatmulKernel MatmulFor(const KernelTable& table, DType dtype);

const KernelTable& ScalarKernels();
// Null: this build or this CPU has none.
const KernelTable* Avx2Kernels();
const KernelTable* Avx512Kernels();
const KernelTable* NeonKernels();
const KernelTable* NeonDotprodKernels();

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_KERNELS_KERNEL_TABLE_H_
