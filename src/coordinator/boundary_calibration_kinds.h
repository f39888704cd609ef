// Which kinds of text a model knows.
#ifndef EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_KINDS_H_
#define EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_KINDS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/boundary_calibration_text.h"
#include "layers/compute.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "tensor/matrix.h"

namespace efedllm {

// Runs windows through the model, one layer loaded at a time, and visits what crosses each boundary
// from 0 on: [tokens, d_model], borrowed. Cancelled; others from file and memory.
absl::Status RunWindows(const ModelFile& file, const ModelConfig& config,
                        const TokenWindows& windows, Compute& compute,
                        const std::function<bool()>& cancelled,
                        absl::FunctionRef<void(uint32_t boundary, ConstMatrixRef rows)> visit);

// The kinds of these windows whose family has one that the model predicts about as well as the one
// that it predicts best: what it will be asked for is like them, and what it never learned shows
// states that don't come up otherwise.
absl::StatusOr<std::vector<std::string>> FamiliarKinds(const ModelFile& file,
                                                       const ModelConfig& config,
                                                       const TokenWindows& windows,
                                                       Compute& compute,
                                                       const std::function<bool()>& cancelled);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_KINDS_H_
