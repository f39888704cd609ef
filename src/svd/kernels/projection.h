// Products of rows of small integers and a matrix of small integers, exact modulo 2^32: every
// kernel gives the same numbers in whatever order it adds. Plain C types only: per-ISA files are
// leaf code.
#ifndef EFEDLLM_SVD_KERNELS_PROJECTION_H_
#define EFEDLLM_SVD_KERNELS_PROJECTION_H_

#include <cstddef>
#include <cstdint>

namespace efedllm {

// Outputs that lie beside each other in a packed matrix. Input k's weight of output o is entry
// [o / 64][k / 2][o % 64][k % 2]; sizes are filled up with zeros.
inline constexpr size_t kPanelOutputs = 64;

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

struct ProjectionKernels {
  const char* name;
  void (*int8)(const ProjectionArgs&);
  void (*int16)(const ProjectionArgs&);
};

const ProjectionKernels& ScalarProjection();
// Null: this build or this CPU has none.
const ProjectionKernels* Avx2Projection();
const ProjectionKernels* Avx512Projection();
// The best that this CPU runs.
const ProjectionKernels& BestProjection();

// Of the per-ISA files; only dispatch.cc may take them: it has asked the CPU first.
extern const ProjectionKernels kAvx2Projection;    // needs AVX2
extern const ProjectionKernels kAvx512Projection;  // needs AVX-512 F, BW and VNNI

}  // namespace efedllm

#endif  // EFEDLLM_SVD_KERNELS_PROJECTION_H_
