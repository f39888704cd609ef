// A matrix of small integers as the projection kernels want it.
#ifndef EFEDLLM_SVD_PACKED_MATRIX_H_
#define EFEDLLM_SVD_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "svd/boundary_basis.h"
#include "svd/kernels/codec_kernels.h"

namespace efedllm {

// A panel's outputs, and so the memory for them, come in whole.
inline size_t WholePanels(size_t n) {
  return (n + kPanelOutputs - 1) / kPanelOutputs * kPanelOutputs;
}

class PackedMatrix {
 public:
  // Of matrix, [n][n]: its transpose's product if `transposed`, so that inputs are its columns.
  PackedMatrix(const IntegerMatrix& matrix, size_t n, bool transposed);

  // x: rows of x_stride, of which the first `inputs` count (an odd number counts the next as well);
  // y: rows of y_stride, at least the first `outputs` of them, filled up to whole panels.
  void Project(const CodecKernels& kernels, const int16_t* x, size_t x_stride, size_t inputs,
               size_t rows, int32_t* y, size_t y_stride, size_t outputs) const;

 private:
  struct Unmap {
    void* mapping;
    size_t bytes;
    void operator()(void* /*entries*/) const;
  };
  static std::unique_ptr<void, Unmap> Allocate(size_t bytes);

  uint32_t entry_bytes_;
  size_t pairs_;
  std::unique_ptr<void, Unmap> entries_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_PACKED_MATRIX_H_
