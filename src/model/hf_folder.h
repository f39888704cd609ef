// A model as Hugging Face publishes it: a folder with config.json, tokenizer.json and the weights
// in safetensors, in one file or several.
#ifndef EFEDLLM_MODEL_HF_FOLDER_H_
#define EFEDLLM_MODEL_HF_FOLDER_H_

#include <string>

#include "absl/status/statusor.h"
#include "model/model_file.h"

namespace efedllm {

// The folder in GGUF's words. Weights stay in the mapped files; only vectors and the experts'
// routers are converted (to F32), some MB. Messages begin with the path of the file that they are
// about. NotFound: a file is missing; InvalidArgument: malformed; Unimplemented: a model, a number
// format or a tokenizer that we can't run, by name.
absl::StatusOr<ModelContents> OpenHfFolder(const std::string& folder);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_HF_FOLDER_H_
