// libs: efedllm_model
// Any bytes as config.json: refused with a message, or metadata that a model's config is made of.
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "common/check.h"
#include "model/hf_config.h"
#include "model/hf_json.h"
#include "model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace efedllm;  // NOLINT(google-build-using-namespace): a fuzz target is one function
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<nlohmann::json> config = ParseJsonObject(text);
  if (!config.ok()) return 0;
  ModelContents model;
  model.parts.emplace_back();
  const absl::StatusOr<HfModel> facts = ReadHfConfig(*config, model);
  if (!facts.ok()) {
    CHECK(!facts.status().message().empty());
    return 0;
  }
  CHECK(facts->kind != nullptr);
  const absl::StatusOr<ModelFile> file = ModelFile::Create(std::move(model));
  CHECK(file.ok());
  CHECK(!ModelConfigFromFile(*file).ok());  // it has no tensors
  return 0;
}
