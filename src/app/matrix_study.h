// Walks a model layer by layer with what compression needs there: each layer's tensors, and the
// second moments of its matrices' inputs over a text.
#ifndef EFEDLLM_APP_MATRIX_STUDY_H_
#define EFEDLLM_APP_MATRIX_STUDY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "app/layered_model.h"
#include "app/matrix_forms.h"
#include "layers/compute.h"
#include "model/model_file.h"

namespace efedllm {

// A matrix that can be compressed.
struct MatrixPlace {
  uint32_t layer = 0;
  std::string part;  // its name without ".weight"
  TensorSpec spec;
};

// The attention's and the feed-forward's matrices, in order of use; not experts and their routers.
absl::StatusOr<std::vector<MatrixPlace>> CompressibleMatrices(const ModelConfig& config,
                                                              const ModelFile& file);

// One layer's weights and inputs, as long as the walk is there.
class LayerVisit {
 public:
  uint32_t layer() const { return layer_; }
  // As the file has them.
  const std::vector<StageTensor>& tensors() const { return tensors_; }
  // Of one of the layer's matrices.
  StudiedMatrix Study(const MatrixPlace& place) const;
  // The layer's tensors with those of a form in place of a matrix's own.
  static absl::StatusOr<std::vector<StageTensor>> Replace(std::vector<StageTensor> tensors,
                                                          const MatrixPlace& place,
                                                          const std::vector<FormTensor>& form);

 private:
  friend class LayerWalk;
  struct Moments {
    std::vector<std::string> parts;  // that have these inputs
    Eigen::MatrixXd gram;
  };

  LayerVisit(const ModelFile& file, ThreadTeam& team) : file_(file), team_(team) {}

  const ModelFile& file_;
  ThreadTeam& team_;
  uint32_t layer_ = 0;
  std::vector<StageTensor> tensors_;
  std::vector<Moments> moments_;
};

class LayerWalk {
 public:
  // All borrowed. `text`: what inputs are taken from.
  LayerWalk(const ModelFile& file, LayeredModel& model, const TextWindows& text, Compute& compute)
      : file_(file), model_(model), text_(text), compute_(compute) {}

  // Calls visit for each layer in order.
  using Visitor = std::function<absl::Status(const LayerVisit& layer)>;
  absl::Status Run(const Visitor& visit);

 private:
  absl::Status Observe(LayerVisit& layer, Matrix& hidden);

  const ModelFile& file_;
  LayeredModel& model_;
  const TextWindows& text_;
  Compute& compute_;
};

}  // namespace efedllm

#endif  // EFEDLLM_APP_MATRIX_STUDY_H_
