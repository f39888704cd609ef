// Scratch memory of a layer's operations.
#ifndef EFEDLLM_LAYERS_SCRATCH_H_
#define EFEDLLM_LAYERS_SCRATCH_H_

#include <cstddef>
#include <vector>

#include "tensor/matrix.h"

namespace efedllm {

// A view of rows x cols of a buffer, which grows if it must: nothing is allocated once the largest
// step has been seen. Valid until the buffer's next use.
inline MatrixRef Shaped(std::vector<float>& buffer, size_t rows, size_t cols) {
  if (buffer.size() < rows * cols) buffer.resize(rows * cols);
  return {buffer.data(), rows, cols};
}

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_SCRATCH_H_
