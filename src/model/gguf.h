// The GGUF format, v2 and v3 (https://github.com/ggerganov/ggml/blob/master/docs/gguf.md).
#ifndef EFEDLLM_MODEL_GGUF_H_
#define EFEDLLM_MODEL_GGUF_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/model_file.h"

namespace efedllm {

// One part without path and mapping, and what is in it; the bytes are borrowed. Every count, size,
// offset and type is checked. InvalidArgument: not a GGUF, truncated, or malformed, saying where.
absl::StatusOr<ModelContents> ReadGguf(absl::Span<const uint8_t> bytes);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_GGUF_H_
