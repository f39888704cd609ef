// Views of activations: row-major f32, borrowed. A row is a token.
#ifndef EFEDLLM_TENSOR_MATRIX_H_
#define EFEDLLM_TENSOR_MATRIX_H_

#include <cstddef>
#include <vector>

#include "absl/types/span.h"

namespace efedllm {

// data: [rows, cols], rows lie behind each other without gaps.
template <class T>
struct BasicMatrixRef {
  T* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;

  T* row(size_t r) const { return data + r * cols; }
  absl::Span<T> span() const { return {data, rows * cols}; }
  // NOLINTNEXTLINE(google-explicit-constructor): a mutable view serves wherever a const one does.
  operator BasicMatrixRef<const T>() const { return {data, rows, cols}; }
};

using MatrixRef = BasicMatrixRef<float>;
using ConstMatrixRef = BasicMatrixRef<const float>;

// Owns what a MatrixRef views.
class Matrix {
 public:
  Matrix() = default;
  Matrix(size_t rows, size_t cols) : rows_(rows), cols_(cols), data_(rows * cols) {}

  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  float* row(size_t r) { return data_.data() + r * cols_; }
  MatrixRef ref() { return {data_.data(), rows_, cols_}; }
  ConstMatrixRef ref() const { return {data_.data(), rows_, cols_}; }

 private:
  size_t rows_ = 0;
  size_t cols_ = 0;
  std::vector<float> data_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TENSOR_MATRIX_H_
