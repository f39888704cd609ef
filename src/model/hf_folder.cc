#include "model/hf_folder.h"

#include <malloc.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/hf_config.h"
#include "model/hf_json.h"
#include "model/hf_tensors.h"
#include "model/hf_tokenizer.h"
#include "model/safetensors.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr size_t kMaxConfigBytes = 16u << 20;
constexpr size_t kMaxTokenizerBytes = 64u << 20;  // Gemma 3's has 32 MB
constexpr size_t kMaxShards = 1000;
constexpr uint64_t kMaxRows = 1u << 21;  // of the embedding; Gemma 3 has 262144
constexpr char kIndexName[] = "model.safetensors.index.json";

absl::Status About(absl::string_view path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

class Folder {
 public:
  explicit Folder(const std::string& path) : path_(path) {
    while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  }

  absl::StatusOr<ModelContents> Open() {
    ASSIGN_OR_RETURN(const std::string config_text, ReadConfigText());
    const std::string config_path = File("config.json");
    absl::StatusOr<json> config = ParseJsonObject(config_text);
    if (!config.ok()) return About(config_path, config.status());
    absl::StatusOr<HfModel> facts = ReadHfConfig(*config, model_);
    if (!facts.ok()) return About(config_path, facts.status());
    model_.Set("general.name", model_.Keep(ModelNameFromPath(path_)));

    RETURN_IF_ERROR(OpenWeights());
    if (absl::Status status = AddHfTensors(*facts, tensors_, model_); !status.ok()) {
      return About(path_, status);
    }
    RETURN_IF_ERROR(ReadTokenizer(*std::move(config)));
    RETURN_IF_ERROR(ReadChatTemplate());
    // It is part of what the weights are: the vectors depend on it.
    const absl::string_view header = model_.Keep(config_text);
    const absl::Span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(header.data()),
                                          header.size());
    model_.parts.push_back({config_path, MappedFile(), bytes, bytes});
    return std::move(model_);
  }

 private:
  std::string File(absl::string_view name) const { return absl::StrCat(path_, "/", name); }

  bool Has(absl::string_view name) const {
    std::error_code error;
    return std::filesystem::exists(File(name), error);
  }

  absl::StatusOr<std::string> ReadConfigText() const {
    absl::StatusOr<std::string> text = ReadFile(File("config.json"), kMaxConfigBytes);
    if (!absl::IsNotFound(text.status())) return text;
    return absl::NotFoundError(
        absl::StrCat(path_,
                     ": the folder has no config.json: it is no Hugging Face model; give "
                     "such a folder, or a GGUF file"));
  }

  // null: there is no such file.
  absl::StatusOr<json> ReadJson(absl::string_view name, size_t max_bytes) const {
    const absl::StatusOr<std::string> text = ReadFile(File(name), max_bytes);
    if (absl::IsNotFound(text.status())) return json();
    if (!text.ok()) return text.status();
    absl::StatusOr<json> value = ParseJsonObject(*text);
    if (!value.ok()) return About(File(name), value.status());
    return value;
  }

  absl::Status OpenWeights() {
    if (Has(kIndexName)) return OpenShards();
    if (Has("model.safetensors")) return OpenShard("model.safetensors", nullptr);
    return absl::NotFoundError(absl::StrCat(
        path_, ": the folder has no model.safetensors and no ", kIndexName,
        Has("pytorch_model.bin") || Has("pytorch_model.bin.index.json")
            ? ": weights in pytorch_model.bin are not supported, convert them to safetensors"
            : ": download the weights"));
  }

  absl::Status OpenShards() {
    ASSIGN_OR_RETURN(const json index, ReadJson(kIndexName, kMaxTokenizerBytes));
    const json* map = FindJson(index, "weight_map");
    if (map == nullptr || !map->is_object()) {
      return About(File(kIndexName), absl::InvalidArgumentError("there is no \"weight_map\""));
    }
    absl::flat_hash_map<std::string, std::string> file_of;
    std::set<std::string> files;
    for (const auto& [tensor, file] : map->items()) {
      const std::string name = file.is_string() ? file.get<std::string>() : "";
      if (name.empty() || absl::StrContains(name, '/') || name[0] == '.') {
        return About(File(kIndexName),
                     absl::InvalidArgumentError(
                         absl::StrCat("tensor ", Printable(tensor), " is in a file \"",
                                      Printable(name), "\", which is no file of this folder")));
      }
      file_of[tensor] = name;
      files.insert(name);
    }
    if (files.size() > kMaxShards) {
      return About(File(kIndexName),
                   absl::InvalidArgumentError(absl::StrCat("weights in ", files.size(), " files")));
    }
    for (const std::string& file : files) RETURN_IF_ERROR(OpenShard(file, &file_of));
    if (tensors_.size() == file_of.size()) return absl::OkStatus();
    for (const SafetensorsTensor& tensor : tensors_) file_of.erase(tensor.name);
    const auto& [tensor, file] = *file_of.begin();
    return About(File(file), absl::InvalidArgumentError(
                                 absl::StrCat("tensor ", Printable(tensor), " is not in it, but ",
                                              kIndexName, " says so; download it again")));
  }

  // file_of: which tensors are in which file; nullptr: all are in this one.
  absl::Status OpenShard(const std::string& name,
                         const absl::flat_hash_map<std::string, std::string>* file_of) {
    const std::string path = File(name);
    absl::StatusOr<MappedFile> mapping = MappedFile::Open(path);
    if (absl::IsNotFound(mapping.status())) {
      return absl::NotFoundError(absl::StrCat(path_, ": ", Printable(name), " is missing: ",
                                              kIndexName, " has tensors in it; download it"));
    }
    if (!mapping.ok()) return mapping.status();
    absl::StatusOr<Safetensors> file = ReadSafetensors(mapping->bytes());
    if (!file.ok()) return About(path, file.status());
    for (SafetensorsTensor& tensor : file->tensors) {
      if (file_of != nullptr) {
        const auto found = file_of->find(tensor.name);
        if (found == file_of->end() || found->second != name) continue;
      }
      tensors_.push_back(std::move(tensor));
    }
    const absl::Span<const uint8_t> bytes = mapping->bytes();
    model_.parts.push_back({path, *std::move(mapping), bytes, file->header});
    return absl::OkStatus();
  }

  absl::Status ReadTokenizer(json config) {
    HfTokenizerFiles files;
    ASSIGN_OR_RETURN(files.tokenizer, ReadJson("tokenizer.json", kMaxTokenizerBytes));
    if (files.tokenizer.is_null()) {
      return absl::NotFoundError(absl::StrCat(
          path_, ": the folder has no tokenizer.json",
          Has("tokenizer.model") ? " (a tokenizer.model alone is not supported)" : ""));
    }
    ASSIGN_OR_RETURN(files.tokenizer_config, ReadJson("tokenizer_config.json", kMaxConfigBytes));
    ASSIGN_OR_RETURN(files.special_tokens, ReadJson("special_tokens_map.json", kMaxConfigBytes));
    ASSIGN_OR_RETURN(files.generation_config, ReadJson("generation_config.json", kMaxConfigBytes));
    files.config = std::move(config);
    if (const json* chat_template = FindJson(files.tokenizer_config, "chat_template")) {
      if (absl::Status status = ReadHfChatTemplate(*chat_template, model_); !status.ok()) {
        return About(File("tokenizer_config.json"), status);
      }
    }
    uint64_t rows = 0;
    for (const ModelTensor& tensor : model_.tensors) {
      if (tensor.name == "token_embd.weight" && tensor.shape.size() == 2) rows = tensor.shape[1];
    }
    if (rows == 0) {
      return About(path_,
                   absl::InvalidArgumentError("there is no tensor model.embed_tokens.weight"));
    }
    if (rows > kMaxRows) {
      return About(path_, absl::InvalidArgumentError(
                              absl::StrCat("an embedding of ", rows, " rows, which no model has")));
    }
    const absl::Status status = ReadHfTokenizer(std::move(files), rows, model_);
    return status.ok() ? status : About(path_, status);
  }

  // Newer folders have the template in a file of its own.
  absl::Status ReadChatTemplate() {
    ASSIGN_OR_RETURN(const json wrapped, ReadJson("chat_template.json", kMaxConfigBytes));
    if (const json* text = FindJson(wrapped, "chat_template")) {
      if (absl::Status status = ReadHfChatTemplate(*text, model_); !status.ok()) {
        return About(File("chat_template.json"), status);
      }
    }
    absl::StatusOr<std::string> text = ReadFile(File("chat_template.jinja"), kMaxConfigBytes);
    if (absl::IsNotFound(text.status())) return absl::OkStatus();
    if (!text.ok()) return text.status();
    model_.Set("tokenizer.chat_template", model_.Keep(*std::move(text)));
    return absl::OkStatus();
  }

  std::string path_;
  ModelContents model_;
  std::vector<SafetensorsTensor> tensors_;
};

}  // namespace

absl::StatusOr<ModelContents> OpenHfFolder(const std::string& folder) {
  absl::StatusOr<ModelContents> model = Folder(folder).Open();
#ifdef __GLIBC__
  malloc_trim(0);  // a parsed tokenizer.json took several times its size, in small pieces
#endif
  return model;
}

}  // namespace efedllm
