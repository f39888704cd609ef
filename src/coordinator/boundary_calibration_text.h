// The text that a model is calibrated on, as the model reads it.
#ifndef EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_TEXT_H_
#define EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_TEXT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_file.h"

namespace efedllm {

// Sequences, each from its first position on.
struct TokenWindows {
  std::vector<std::vector<int32_t>> windows;

  uint64_t tokens() const;
  std::vector<uint32_t> lengths() const;
};

// text: documents as CalibrationSample() has them, or any text, which is one document. A chat
// stands in a window of its own, as the model's chat template has it; all else lies behind each
// other in windows of up to 1024 tokens or the model's context. At most max_tokens, from the
// beginning on. InvalidArgument: less than 64 tokens.
absl::StatusOr<TokenWindows> CalibrationWindows(const ModelFile& file, absl::string_view text,
                                                uint32_t context, uint64_t max_tokens);

// Every `period`-th window, as long as they have less than max_tokens together, moves over; at
// least one, if there are two.
TokenWindows TakeEvery(TokenWindows& windows, size_t period, uint64_t max_tokens);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_TEXT_H_
