#include "model/gradient.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "common/check.h"
#include "common/status_macros.h"
#include "model/factors.h"
#include "model/gradient_head.h"
#include "model/gradient_layer.h"
#include "model/ropes.h"
#include "model/weights.h"

namespace efedllm {
namespace {

// Rows that go through a layer together: enough to make use of the weights, and not so many that
// their intermediate values take more than those.
constexpr size_t kRowsTogether = 512;
constexpr uint64_t kLogitsBytes = 64u << 20;

absl::StatusOr<std::vector<Rope>> RopesOf(const ModelConfig& config, const ModelFile& file) {
  std::vector<float> factors;
  if (const ModelTensor* tensor = file.FindTensor(RopeFactorsTensor(config.rope.scaling))) {
    factors.resize(config.rope.dims / 2);
    CHECK(tensor->bytes.size() == factors.size() * sizeof(float));  // CheckModelTensors
    std::memcpy(factors.data(), tensor->bytes.data(), tensor->bytes.size());
  }
  return MakeRopes(config, factors);
}

template <class T>
BasicMatrixRef<T> RowsOf(BasicMatrixRef<T> all, size_t first, size_t rows) {
  return {all.row(first), rows, all.cols};
}

// Rows [first, first + rows) of each draw.
std::vector<MatrixRef> RowsOfDraws(Matrix& gradients, uint32_t draws, size_t first, size_t rows) {
  std::vector<MatrixRef> parts;
  for (uint32_t draw = 0; draw < draws; ++draw) {
    parts.push_back(RowsOf(gradients.ref(), draw * (gradients.rows() / draws) + first, rows));
  }
  return parts;
}

absl::Status CheckGoesOn(const GradientOptions& options) {
  if (!options.cancelled || !options.cancelled()) return absl::OkStatus();
  return absl::CancelledError("the calibration was cancelled");
}

absl::Status BackHead(const ModelFile& file, const ModelConfig& config, ConstMatrixRef inputs,
                      const GradientOptions& options, Compute& compute, Matrix& gradients) {
  ASSIGN_OR_RETURN(HeadGradient head, HeadGradient::Create(file, config, compute));
  const size_t most =
      std::clamp<size_t>(kLogitsBytes / (config.vocab * sizeof(float)), 16, kRowsTogether);
  for (size_t first = 0; first < inputs.rows; first += most) {
    RETURN_IF_ERROR(CheckGoesOn(options));
    const size_t rows = std::min(most, inputs.rows - first);
    RETURN_IF_ERROR(head.Backward(RowsOf(inputs, first, rows), options.seed, first,
                                  RowsOfDraws(gradients, options.draws, first, rows)));
  }
  return absl::OkStatus();
}

absl::Status BackLayer(LayerGradient& layer, absl::Span<const uint32_t> lengths,
                       ConstMatrixRef inputs, const GradientOptions& options, Matrix& gradients) {
  size_t row = 0;
  for (size_t i = 0; i < lengths.size();) {
    RETURN_IF_ERROR(CheckGoesOn(options));
    size_t rows = lengths[i], count = 1;
    while (i + count < lengths.size() && rows + lengths[i + count] <= kRowsTogether) {
      rows += lengths[i + count++];
    }
    layer.Forward(lengths.subspan(i, count), RowsOf(inputs, row, rows));
    RETURN_IF_ERROR(layer.Backward(RowsOfDraws(gradients, options.draws, row, rows)));
    i += count;
    row += rows;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status VisitGradients(
    const ModelFile& file, const ModelConfig& config, const GradientInputs& inputs,
    const GradientOptions& options, Compute& compute,
    absl::FunctionRef<absl::Status(uint32_t boundary, ConstMatrixRef gradients)> visit) {
  CHECK(options.lowest <= config.layers && options.draws > 0);
  if (HasFactors(file)) {
    return absl::UnimplementedError("no gradients of a model with factored matrices");
  }
  ASSIGN_OR_RETURN(const std::vector<Rope> ropes, RopesOf(config, file));
  const ConstMatrixRef last = inputs.rows(config.layers);
  Matrix gradients(options.draws * last.rows, config.d_model);
  RETURN_IF_ERROR(BackHead(file, config, last, options, compute, gradients));
  RETURN_IF_ERROR(visit(config.layers, gradients.ref()));
  for (uint32_t layer = config.layers; layer-- > options.lowest;) {
    ASSIGN_OR_RETURN(const std::unique_ptr<LayerGradient> backward,
                     LayerGradient::Create(file, config, layer, ropes, compute));
    RETURN_IF_ERROR(BackLayer(*backward, inputs.lengths, inputs.rows(layer), options, gradients));
    RETURN_IF_ERROR(visit(layer, gradients.ref()));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
