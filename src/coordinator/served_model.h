// The model that this coordinator serves: the parts of it that never leave the coordinator.
#ifndef EFEDLLM_COORDINATOR_SERVED_MODEL_H_
#define EFEDLLM_COORDINATOR_SERVED_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "layers/compute.h"
#include "model/embedding.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace efedllm {

// Immutable after Load, except head: one call at a time (the scheduler's thread). Does not move:
// the parts point at each other.
struct ServedModel {
  // head_compute (the head's threads and kernels) is borrowed and outlives the model. A model
  // without a usable chat template still serves completions.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const std::string& path,
                                                           Compute& head_compute);
  ServedModel(const ServedModel&) = delete;
  ServedModel& operator=(const ServedModel&) = delete;

  // Does a request's "model" mean this one? In any case of letters: id, general.name, or the
  // beginning of the id up to a '-' ("seedling" for "seedling-q8_0").
  bool Answers(absl::string_view name) const;

  uint32_t context =
      0;           // tokens that a sequence may have: config.context, or what the operator set
  std::string id;  // the file's name without folder and ".gguf"
  ModelFile file;
  ModelConfig config;
  std::unique_ptr<Tokenizer> tokenizer;
  absl::StatusOr<ChatTemplate> chat_template;  // its error is what a chat request gets
  Embedding embedding;
  std::unique_ptr<OutputHead> head;

 private:
  ServedModel() : chat_template(absl::UnknownError("")) {}
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_SERVED_MODEL_H_
