// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes with the header's
// size, a JSON header that says where each tensor lies, and the tensors.
#ifndef EFEDLLM_MODEL_SAFETENSORS_H_
#define EFEDLLM_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace efedllm {

struct SafetensorsTensor {
  std::string name;
  std::string dtype;            // "F32", "F16", "BF16", or one that we can't compute with
  std::vector<uint64_t> shape;  // outermost first, as in the file; empty for a single number
  absl::Span<const uint8_t> bytes;
};

struct Safetensors {
  std::vector<SafetensorsTensor> tensors;  // in the order of their bytes
  absl::Span<const uint8_t> header;
};

// bytes: a whole file, borrowed. InvalidArgument: truncated or malformed, saying where; what lies
// in the file is then exactly the tensors, without holes or overlaps.
absl::StatusOr<Safetensors> ReadSafetensors(absl::Span<const uint8_t> bytes);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_SAFETENSORS_H_
