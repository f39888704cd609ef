// The text that a model is calibrated on, as the model reads it.
#ifndef EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_TEXT_H_
#define EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_file.h"

namespace efedllm {

// Sequences, each from its first position on.
struct TokenWindows {
  std::vector<std::vector<int32_t>> windows;
  std::vector<std::string> kinds;  // of the text in each

  uint64_t tokens() const;
  std::vector<uint32_t> lengths() const;
};

struct WindowLimits {
  uint32_t context = 0;            // of the model
  uint64_t tokens = 0;             // at most, from the text's beginning on
  uint64_t tokens_per_kind = 0;    // at most; 0: as many as there are
  std::vector<std::string> kinds;  // that are wanted; empty: all
};

// text: documents as CalibrationSample() has them, or any text, which is one document. A chat
// stands in a window of its own, as the model's chat template has it; all else of a kind lies
// behind each other in windows of up to 1024 tokens or the model's context.
absl::StatusOr<TokenWindows> CutWindows(const ModelFile& file, absl::string_view text,
                                        const WindowLimits& limits);
// All kinds of it, at most max_tokens. InvalidArgument: less than 64 tokens.
absl::StatusOr<TokenWindows> CalibrationWindows(const ModelFile& file, absl::string_view text,
                                                uint32_t context, uint64_t max_tokens);

// Windows from all over the text move over until they have about so many tokens, and at most a
// third of all; none if there is only one.
TokenWindows TakeSome(TokenWindows& windows, uint64_t tokens);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_TEXT_H_
