// libs: efedllm_model
// A GGUF file is whatever somebody put on the internet: any bytes are refused with a message, or
// give a config and tensors that can be trusted.
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "common/check.h"
#include "model/embedding.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/weights.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace efedllm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  const absl::StatusOr<ModelFile> file = ModelFile::Parse(absl::MakeConstSpan(data, size));
  if (!file.ok()) {
    CHECK(!file.status().message().empty());
    return 0;
  }
  uint64_t sum = 0;
  for (const ModelTensor& tensor : file->tensors()) {
    if (!tensor.bytes.empty()) sum += tensor.bytes.front() + tensor.bytes.back();
  }
  const absl::StatusOr<ModelConfig> config = ModelConfigFromFile(*file);
  if (!config.ok()) return static_cast<int>(sum & 0);
  CHECK(ValidateModelConfig(*config).ok());
  const LayerRange all{0, config->layers};
  const absl::StatusOr<std::vector<TensorSpec>> specs = StageTensors(*config, *file, all);
  CHECK(specs.ok());
  CHECK(CheckStageShapes(*config, all, *specs).ok());
  for (const TensorSpec& spec : *specs) {
    CHECK(spec.bytes() == file->FindTensor(spec.name)->bytes.size());
    CHECK(PackedBytes(spec) >= spec.bytes());
  }
  const absl::StatusOr<Embedding> embedding = Embedding::Create(*config, *file);
  CHECK(embedding.ok());
  Matrix row(1, config->d_model);
  const absl::Status looked_up = embedding->Lookup({0}, row.ref());
  CHECK(looked_up.ok() || absl::IsDataLoss(looked_up));  // a row that is not finite is damage
  return 0;
}
