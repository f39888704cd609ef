// The backward pass of a layer's feed-forward network, dense or of experts.
#ifndef EFEDLLM_MODEL_GRADIENT_FEED_FORWARD_H_
#define EFEDLLM_MODEL_GRADIENT_FEED_FORWARD_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "layers/compute.h"
#include "layers/linear.h"
#include "model/gradient_weights.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "tensor/matrix.h"

namespace efedllm {

// A dense network is one expert that all rows use. One call at a time.
class FeedForwardGradient {
 public:
  // All borrowed; tensors must outlive this.
  FeedForwardGradient(const ModelFile& file, const ModelConfig& config, uint32_t layer,
                      const LayerTensorMap& tensors, Compute& compute);

  // out = network(x); keeps what Backward needs. x, out: [rows, d_model], x borrowed until then.
  void Forward(ConstMatrixRef x, MatrixRef out);
  // Of each of several gradients: dx from dout, [rows, d_model], not overlapping. Which experts a
  // row uses is held fixed; how much of each is not.
  absl::Status Backward(absl::Span<const ConstMatrixRef> dout, absl::Span<const MatrixRef> dx);

 private:
  // The rows that an expert works on.
  struct Expert {
    std::vector<uint32_t> rows;
    std::vector<float> shares;
    std::vector<uint32_t> choices;  // where in shares_ this expert stands, of each row
    Matrix gate, up, out;           // before the activation; [rows, d_ffn] and [rows, d_model]
  };

  void Route(ConstMatrixRef x);
  void RunExpert(uint32_t number, ConstMatrixRef x);
  absl::Status LoadExpert(uint32_t number);
  // dshares: [rows, used], filled in for the expert's rows.
  void BackExpert(const Expert& expert, ConstMatrixRef dout, MatrixRef dshares, MatrixRef dx);
  void BackRouter(ConstMatrixRef dshares, MatrixRef dx);

  bool routed() const { return config_.HasExperts(); }
  size_t used() const { return routed() ? config_.experts_used : 1; }

  const ModelFile& file_;
  const ModelConfig& config_;
  const uint32_t layer_;
  const LayerTensorMap& tensors_;
  Compute& compute_;
  Linear linear_;

  std::vector<Expert> experts_;
  Matrix shares_;                 // [rows, used]: of the softmax over the chosen
  std::vector<uint32_t> chosen_;  // [rows, used]: experts
  int64_t loaded_ = -1;           // the expert whose transposed weights stand here
  TransposedMatrix gate_up_, down_;
  TransposedMatrix router_;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GRADIENT_FEED_FORWARD_H_
