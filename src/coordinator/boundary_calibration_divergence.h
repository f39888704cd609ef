// What coding one boundary does to a model's predictions.
#ifndef EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_DIVERGENCE_H_
#define EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_DIVERGENCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "layers/compute.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "svd/boundary_basis.h"
#include "tensor/matrix.h"

namespace efedllm {

// A text, and what crosses the boundaries while the model reads it.
struct DivergenceText {
  absl::Span<const uint32_t> lengths;   // of its sequences
  absl::Span<const std::string> kinds;  // of text, of each
  absl::FunctionRef<ConstMatrixRef(uint32_t boundary)> rows;
};

// Sets kl of both models of each basis: runs the text with that boundary alone coded at one of the
// measured steps, by teacher forcing, and takes the mean over the kind of text that minds most. In
// it is what any change does, however small (int8 products come out differently after it): that
// doesn't grow with the step, nor add up over boundaries. bases: in order of their boundaries.
// Layers are loaded one at a time. progress: called with a share from 0 to 1. Cancelled; others as
// RunOneLayer.
absl::Status MeasureDivergence(const ModelFile& file, const ModelConfig& config,
                               const DivergenceText& text, const std::string& scratch_dir,
                               absl::Span<const std::shared_ptr<BoundaryBasis>> bases,
                               Compute& compute, const std::function<bool()>& cancelled,
                               absl::FunctionRef<void(double share)> progress);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_DIVERGENCE_H_
