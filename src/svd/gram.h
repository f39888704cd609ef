// The Gram matrix of rows that stream by: Σ x·xᵀ.
#ifndef EFEDLLM_SVD_GRAM_H_
#define EFEDLLM_SVD_GRAM_H_

#include <Eigen/Dense>
#include <cstddef>
#include <cstdint>

#include "common/thread_team.h"
#include "tensor/matrix.h"

namespace efedllm {

// Rows come as f32, products and sums are f64. The bits don't depend on how the rows are cut into
// blocks, nor on the number of threads. Takes 8·dim² bytes and a buffer of some hundred rows. Not
// thread-safe; parallel inside.
class GramAccumulator {
 public:
  // team is borrowed and outlives this.
  GramAccumulator(size_t dim, ThreadTeam& team);

  size_t dim() const { return static_cast<size_t>(sum_.rows()); }
  uint64_t rows() const { return rows_; }

  // rows: [n, dim], borrowed, for any n.
  void Add(ConstMatrixRef rows);

  // Σ x·xᵀ over all rows so far: [dim, dim], symmetric.
  Eigen::MatrixXd Sum();
  // The same over their number: the second moments. Zeros if there were no rows.
  Eigen::MatrixXd Mean();

 private:
  void Flush();

  ThreadTeam& team_;
  Eigen::MatrixXd sum_;        // its lower triangle, without what is buffered
  Eigen::MatrixXd buffer_;     // [dim, rows of a block]
  Eigen::Index buffered_ = 0;  // columns of it
  uint64_t rows_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_GRAM_H_
