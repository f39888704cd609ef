// A model of which one layer is in memory at a time: texts go through it layer by layer, in as many
// variants of its weights as one wants to compare.
#ifndef EFEDLLM_APP_LAYERED_MODEL_H_
#define EFEDLLM_APP_LAYERED_MODEL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "layers/compute.h"
#include "model/embedding.h"
#include "model/logits_source.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/stage_executor.h"
#include "tensor/matrix.h"

namespace efedllm {

// How a variant predicts a text, held against the model as it is.
struct VariantQuality {
  double mean_kl = 0;  // nats
  double max_kl = 0;
  double perplexity = 0;
};

class LayeredModel {
 public:
  // file and compute are borrowed and outlive this.
  static absl::StatusOr<std::unique_ptr<LayeredModel>> Create(const ModelFile& file,
                                                              const ModelConfig& config,
                                                              Compute& compute);

  const ModelConfig& config() const { return config_; }

  // The activations of a text before the first layer: [tokens of all windows, d_model].
  absl::StatusOr<Matrix> Embed(const TextWindows& text) const;

  // Runs one layer in place. tensors: of StageTensors() or others that fit.
  absl::Status RunLayer(uint32_t layer, const std::vector<StageTensor>& tensors,
                        const TextWindows& text, const std::vector<MatrixRef>& hidden) const;

  // What the head makes of activations behind the last layer. The reference comes first in the
  // result, with a KL of 0. DataLoss: a logit is not finite.
  absl::StatusOr<std::vector<VariantQuality>> Compare(const TextWindows& text,
                                                      ConstMatrixRef reference,
                                                      const std::vector<ConstMatrixRef>& variants);

 private:
  LayeredModel(const ModelConfig& config, Compute& compute, Embedding embedding,
               std::unique_ptr<OutputHead> head)
      : config_(config),
        compute_(compute),
        embedding_(std::move(embedding)),
        head_(std::move(head)) {}

  const ModelConfig config_;
  Compute& compute_;
  const Embedding embedding_;
  const std::unique_ptr<OutputHead> head_;
};

}  // namespace efedllm

#endif  // EFEDLLM_APP_LAYERED_MODEL_H_
