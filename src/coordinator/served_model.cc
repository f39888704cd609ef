#include "coordinator/served_model.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"

namespace efedllm {

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(const std::string& path,
                                                               Compute& head_compute) {
  std::unique_ptr<ServedModel> model(new ServedModel);
  model->id = ModelNameFromPath(path);
  ASSIGN_OR_RETURN(model->file, ModelFile::Open(path));
  ASSIGN_OR_RETURN(model->config, ModelConfigFromFile(model->file));
  model->context = model->config.context;
  ASSIGN_OR_RETURN(model->tokenizer, Tokenizer::Create(model->file));
  model->chat_template = ChatTemplate::ForModel(model->file, *model->tokenizer);
  if (!model->chat_template.ok()) {
    spdlog::warn("{}: no chat completions: {}", model->id,
                 std::string(model->chat_template.status().message()));
  }
  ASSIGN_OR_RETURN(model->embedding, Embedding::Create(model->config, model->file));
  ASSIGN_OR_RETURN(model->head, OutputHead::Create(model->config, model->file, head_compute));
  return model;
}

bool ServedModel::Answers(absl::string_view name) const {
  if (absl::EqualsIgnoreCase(name, id)) return true;
  if (name.empty()) return false;
  return absl::EqualsIgnoreCase(name, config.name) ||
         absl::StartsWithIgnoreCase(id, absl::StrCat(name, "-"));
}

}  // namespace efedllm
