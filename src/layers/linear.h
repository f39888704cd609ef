// Matrix products: activations times packed weights.
#ifndef EFEDLLM_LAYERS_LINEAR_H_
#define EFEDLLM_LAYERS_LINEAR_H_

#include <vector>

#include "absl/types/span.h"
#include "layers/compute.h"
#include "layers/kernels/kernel_table.h"
#include "layers/packed_matrix.h"
#include "layers/projection.h"
#include "tensor/matrix.h"

namespace efedllm {

// One product of a call: y = x · wᵀ. y: [x.rows, w.rows], borrowed; must not overlap x.
struct LinearTerm {
  const PackedMatrix& w;
  MatrixRef y;
};

// One projection of a call, without its bias: y = x · wᵀ + (x · aᵀ) · bᵀ. y: [x.rows, outputs],
// borrowed; must not overlap x.
struct ProjectionTerm {
  const Projection& projection;
  MatrixRef y;
};

// Not thread-safe: owns the quantized activations, which are reused from call to call. One per
// executor or head.
class Linear {
 public:
  // compute is borrowed and outlives this.
  explicit Linear(Compute& compute) : compute_(compute) {}

  // Computes all terms from one x ([n, cols], cols as every w has), which is quantized once for
  // those that want int8 and goes in as f32 to the others. A row of y depends on its row of x
  // alone.
  void Run(ConstMatrixRef x, absl::Span<const LinearTerm> terms);
  // The same for projections, which may have factors. What lies between two factors is computed
  // once for all terms that share the first one.
  void Project(ConstMatrixRef x, absl::Span<const ProjectionTerm> terms);

 private:
  void Quantize(ConstMatrixRef x);

  Compute& compute_;
  std::vector<QuantBlock> quantized_;      // [x.rows, x.cols / 32]
  std::vector<std::vector<float>> inner_;  // x · aᵀ of each term
  std::vector<float> correction_;          // (x · aᵀ) · bᵀ beside a w
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_LINEAR_H_
