// The second half of a decoder layer: a gated feed-forward network for all tokens, or a router and
// experts, of which each token uses a few (Shazeer et al., arXiv 1701.06538).
#ifndef EFEDLLM_LAYERS_FEED_FORWARD_H_
#define EFEDLLM_LAYERS_FEED_FORWARD_H_

#include <cstdint>
#include <vector>

#include "layers/compute.h"
#include "layers/linear.h"
#include "layers/packed_matrix.h"
#include "layers/projection.h"
#include "tensor/matrix.h"

namespace efedllm {

// SiluMul or GeluMul (layers/elementwise.h): gate = act(gate) · up.
using GateActivation = void (*)(Compute& compute, MatrixRef gate, ConstMatrixRef up);

struct FeedForwardShape {
  uint32_t d_model = 0;
  uint32_t d_ffn = 0;  // of one expert, where there are experts
  uint32_t experts = 0;
  uint32_t experts_used = 0;
  GateActivation activation = nullptr;
};

// Borrowed. With experts, gate, up and down hold one expert's rows behind the other's.
struct FeedForwardWeights {
  Projection router;  // [experts, d_model]; without data: there are no experts. None has factors
  Projection gate;    // [experts * d_ffn, d_model]
  Projection up;      // [experts * d_ffn, d_model]
  Projection down;    // [experts * d_model, d_ffn]
};

// Not thread-safe: owns scratch memory. Parallel inside.
class FeedForward {
 public:
  // compute is borrowed and outlives this.
  FeedForward(const FeedForwardShape& shape, Compute& compute)
      : shape_(shape), compute_(compute), linear_(compute) {}

  // y = down(act(gate(x)) · up(x)). With experts: the sum of the chosen ones', each times its share
  // of the softmax over the chosen. x, y: [rows, d_model], not overlapping. A row of y depends on
  // its row of x alone.
  void Run(const FeedForwardWeights& weights, ConstMatrixRef x, MatrixRef y);

 private:
  // A row that an expert works on, and the share of it.
  struct Routed {
    uint32_t row;
    float share;
  };

  void RunOne(const Projection& gate, const Projection& up, const Projection& down,
              ConstMatrixRef x, MatrixRef y);
  void RunExperts(const FeedForwardWeights& weights, ConstMatrixRef x, MatrixRef y);
  void Route(const Projection& router, ConstMatrixRef x);
  void Choose(const float* logits, uint32_t row);

  const FeedForwardShape shape_;
  Compute& compute_;
  Linear linear_;

  std::vector<float> gate_, up_;                // [rows, d_ffn]
  std::vector<float> router_logits_;            // [rows, experts]
  std::vector<std::vector<Routed>> by_expert_;  // in order of rows
  std::vector<float> gathered_, results_;       // [an expert's rows, d_model]
};

}  // namespace efedllm

#endif  // EFEDLLM_LAYERS_FEED_FORWARD_H_
