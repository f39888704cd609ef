// The backward pass of one decoder layer.
#ifndef EFEDLLM_MODEL_GRADIENT_LAYER_H_
#define EFEDLLM_MODEL_GRADIENT_LAYER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "layers/compute.h"
#include "layers/linear.h"
#include "layers/rope.h"
#include "model/gradient_feed_forward.h"
#include "model/gradient_math.h"
#include "model/gradient_weights.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "tensor/matrix.h"

namespace efedllm {

// Holds the layer's weights as the engine has them, and transposed in f32 (of one expert at a
// time). One call at a time.
class LayerGradient {
 public:
  // ropes: MakeRopes(config). All borrowed. Unimplemented: the layer has other tensors than this
  // pass knows; others from the file and memory.
  static absl::StatusOr<std::unique_ptr<LayerGradient>> Create(const ModelFile& file,
                                                               const ModelConfig& config,
                                                               uint32_t layer,
                                                               const std::vector<Rope>& ropes,
                                                               Compute& compute);

  // Runs the layer over sequences that lie behind each other, each from its first position on, and
  // keeps what Backward needs. lengths sum to inputs.rows; inputs: [rows, d_model], borrowed until
  // then. The result: [rows, d_model], borrowed until the next call.
  ConstMatrixRef Forward(absl::Span<const uint32_t> lengths, ConstMatrixRef inputs);
  // Each of several gradients for the layer's output becomes the one for its input, in place.
  absl::Status Backward(absl::Span<const MatrixRef> gradients);

 private:
  LayerGradient(const ModelFile& file, const ModelConfig& config, uint32_t layer, const Rope& rope,
                LayerTensorMap tensors, Compute& compute);
  absl::Status LoadTransposed(const ModelFile& file);

  void Project();  // q, k, v from normed
  void FinishHeads(const char* norm, ConstMatrixRef raw, MatrixRef x) const;
  // Of rows [first, first + tokens) of one kv head.
  template <class Body>
  void ForHeads(const Body& body);
  void AttendAll();
  void BackAttention(ConstMatrixRef gradient, MatrixRef dnormed);
  // dx of position and norm, in place.
  void BackHeads(const char* norm, ConstMatrixRef raw, MatrixRef dx) const;
  void Turn(MatrixRef x, bool back) const;
  void AddNormBackward(const char* norm, ConstMatrixRef x, ConstMatrixRef dy, bool add,
                       MatrixRef dx) const;

  const ModelConfig& config_;
  const uint32_t layer_;
  const Rope& rope_;
  const LayerTensorMap tensors_;
  Compute& compute_;
  Linear linear_;
  const AttentionShape shape_;
  FeedForwardGradient feed_forward_;
  TransposedMatrix qkv_, output_;

  // Of the last Forward. [rows, ...]
  std::vector<uint32_t> lengths_;
  std::vector<float> cos_, sin_;  // [rows, rope dims]
  ConstMatrixRef inputs_;
  Matrix normed_, q_raw_, k_raw_, q_, k_, v_;  // raw: before norm and position
  Matrix attended_, projected_, middle_;       // middle: between attention and feed-forward
  Matrix ffn_normed_, ffn_out_, out_;
  std::vector<std::vector<float>> probabilities_;  // of each sequence and kv head
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GRADIENT_LAYER_H_
