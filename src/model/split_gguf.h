// A GGUF of several files: "name-00002-of-00003.gguf" is the second part of three. The first has
// the metadata, all have tensors.
#ifndef EFEDLLM_MODEL_SPLIT_GGUF_H_
#define EFEDLLM_MODEL_SPLIT_GGUF_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/model_file.h"

namespace efedllm {

// A GGUF, and where it is a part of a split one, all parts, which lie beside it. Messages begin
// with the path that they are about.
absl::StatusOr<ModelContents> OpenGguf(const std::string& path);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_SPLIT_GGUF_H_
