// The loops of the codecs, in one table per ISA; an entry of any table equals the scalar one bit
// for bit (docs/numerics.md, "Codecs"). Plain C types only: per-ISA files are leaf code.
#ifndef EFEDLLM_SVD_KERNELS_CODEC_KERNELS_H_
#define EFEDLLM_SVD_KERNELS_CODEC_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace efedllm {

// Outputs that lie beside each other in a packed matrix. Input k's weight of output o is entry
// [o / 64][k / 2][o % 64][k % 2]; sizes are filled up with zeros.
inline constexpr size_t kPanelOutputs = 64;

// Half steps are counted in so many parts.
inline constexpr int32_t kTrellisUnit = 128;
inline constexpr int32_t kMaxTrellisInput = 32760 * kTrellisUnit;

// y[r · y_stride + o] = Σ_k x[r · x_stride + k] · weight[k][o], for the first `panels` panels and
// the first 2·pairs inputs.
struct ProjectionArgs {
  const void* matrix;  // int8_t or int16_t
  size_t panel_pairs;  // of a whole panel
  size_t panels;       // to compute
  size_t pairs;        // to sum over, at most panel_pairs
  const int16_t* x;    // rows of 2·pairs
  size_t x_stride;
  size_t rows;
  int32_t* y;  // rows of panels · kPanelOutputs
  size_t y_stride;
};

struct CodecKernels {
  const char* name;
  // Exact modulo 2^32, in whatever order the products are added.
  void (*project_int8)(const ProjectionArgs&);
  void (*project_int16)(const ProjectionArgs&);

  // y = x - mean.
  void (*center)(const float* x, const float* mean, size_t n, float* y);
  // sqrt of the mean of the squares.
  float (*root_mean_square)(const float* x, size_t n);
  // to = the integer nearest to from · factor, ties to even, within ±32767, or ±kMaxTrellisInput
  // for an int32. The result: the bits of the largest |from · factor|.
  uint32_t (*round_to_int16)(const float* from, size_t n, float factor, int16_t* to);
  uint32_t (*round_floats)(const float* from, size_t n, float factor, int32_t* to);
  uint32_t (*round_sums)(const int32_t* from, size_t n, const float* factors, int32_t* to);
  // The best path through the trellis of svd/trellis.h. q: what it makes of x, [n], which is within
  // ±kMaxTrellisInput; the result: Σ (kTrellisUnit · multiple - x)². errors, choices: scratch,
  // [4·n] and [n]. n is at most 2^16.
  uint32_t (*trellis)(const int32_t* x, size_t n, int32_t* errors, uint8_t* choices, int16_t* q);
  // y = numbers · factor + mean.
  void (*restore_int16)(const int16_t* numbers, const float* mean, size_t n, float factor,
                        float* y);
  void (*restore_int32)(const int32_t* numbers, const float* mean, size_t n, float factor,
                        float* y);
  // The sum of (a - b)², in doubles.
  double (*squared_error)(const float* a, const float* b, size_t n);
  // f16 bits of finite x, to nearest even, beyond the range infinity; and back.
  void (*to_f16)(const float* x, size_t n, uint16_t* y);
  void (*from_f16)(const uint16_t* x, size_t n, float* y);
  // y = the integer nearest to x / scale, which is within ±127.
  void (*to_int8)(const float* x, size_t n, float scale, int8_t* y);
  void (*from_int8)(const int8_t* x, size_t n, float scale, float* y);
};

const CodecKernels& ScalarCodecKernels();
// Null: this build or this CPU has none.
const CodecKernels* Avx2CodecKernels();
const CodecKernels* Avx512CodecKernels();
// The best that this CPU runs.
const CodecKernels& BestCodecKernels();

// Of the per-ISA files; only dispatch.cc may take them: it has asked the CPU first.
extern const CodecKernels kAvx2CodecTable;    // needs AVX2
extern const CodecKernels kAvx512CodecTable;  // needs AVX-512 F, BW, DQ, VL and VNNI

}  // namespace efedllm

#endif  // EFEDLLM_SVD_KERNELS_CODEC_KERNELS_H_
