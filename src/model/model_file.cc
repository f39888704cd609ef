#include "model/model_file.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/check.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/gguf.h"
#include "model/hf_folder.h"
#include "model/split_gguf.h"
#include "tensor/dtype.h"

namespace efedllm {
namespace {

absl::Status Missing(absl::string_view key) {
  return absl::NotFoundError(absl::StrCat("the model has no metadata key ", Printable(key)));
}

absl::Status WrongType(absl::string_view key, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("metadata key ", Printable(key), " is not ", wanted));
}

// "model" of "model-00001-of-00003"; else the name as it is.
absl::string_view WithoutPartNumber(absl::string_view name) {
  constexpr absl::string_view kShape = "-00000-of-00000";
  if (name.size() <= kShape.size()) return name;
  const absl::string_view end = name.substr(name.size() - kShape.size());
  for (size_t i = 0; i < kShape.size(); ++i) {
    const bool digit = end[i] >= '0' && end[i] <= '9';
    if (kShape[i] == '0' ? !digit : end[i] != kShape[i]) return name;
  }
  return name.substr(0, name.size() - kShape.size());
}

}  // namespace

std::string ModelNameFromPath(const std::string& path) {
  std::error_code error;
  // The full path, so that "." has a name too.
  std::filesystem::path full = std::filesystem::absolute(path, error).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  const std::string repository = full.parent_path().parent_path().filename().string();
  if (full.parent_path().filename() == "snapshots" && absl::StartsWith(repository, "models--")) {
    return repository.substr(repository.rfind("--") + 2);
  }
  const std::string name = full.filename().string();
  absl::string_view stem = name;
  absl::ConsumeSuffix(&stem, ".gguf");
  return std::string(WithoutPartNumber(stem));
}

uint64_t ModelTensor::size_bytes() const {
  return pieces.empty() ? bytes.size() : pieces.size() * pieces[0].size();
}

absl::Span<const uint8_t> ModelTensor::Bytes(uint64_t offset, uint64_t length,
                                             std::vector<uint8_t>& scratch) const {
  CHECK(offset <= size_bytes() && length <= size_bytes() - offset);
  if (length == 0) return {};
  if (pieces.empty()) return bytes.subspan(offset, length);
  const uint64_t piece_bytes = pieces[0].size();
  const uint64_t begin = offset % piece_bytes;
  if (length <= piece_bytes - begin) return pieces[offset / piece_bytes].subspan(begin, length);
  scratch.clear();
  while (scratch.size() < length) {
    const uint64_t at = offset + scratch.size();
    const auto rest = pieces[at / piece_bytes].subspan(at % piece_bytes, length - scratch.size());
    scratch.insert(scratch.end(), rest.begin(), rest.end());
  }
  return scratch;
}

absl::string_view ModelContents::Keep(std::string text) {
  return strings.emplace_back(std::move(text));
}

void ModelContents::Set(absl::string_view key, MetadataValue value) {
  values.insert_or_assign(Keep(std::string(key)), std::move(value));
}

void ModelContents::AddF32(absl::string_view name, std::vector<uint64_t> shape,
                           std::vector<float> values_of_it) {
  const std::vector<float>& kept = vectors.emplace_back(std::move(values_of_it));
  ModelTensor tensor;
  tensor.name = Keep(std::string(name));
  tensor.gguf_type = static_cast<uint32_t>(DType::kF32);
  tensor.shape = std::move(shape);
  tensor.bytes = {reinterpret_cast<const uint8_t*>(kept.data()), kept.size() * sizeof(float)};
  tensors.push_back(std::move(tensor));
}

absl::StatusOr<ModelFile> ModelFile::Open(const std::string& path) {
  std::error_code error;
  absl::StatusOr<ModelContents> contents =
      std::filesystem::is_directory(path, error) ? OpenHfFolder(path) : OpenGguf(path);
  if (!contents.ok()) return contents.status();
  absl::StatusOr<ModelFile> file = Create(*std::move(contents));
  if (!file.ok()) {
    return absl::Status(file.status().code(), absl::StrCat(path, ": ", file.status().message()));
  }
  file->path_ = path;
  return file;
}

absl::StatusOr<ModelFile> ModelFile::Parse(absl::Span<const uint8_t> bytes) {
  ASSIGN_OR_RETURN(ModelContents contents, ReadGguf(bytes));
  return Create(std::move(contents));
}

absl::StatusOr<ModelFile> ModelFile::Create(ModelContents contents) {
  CHECK(!contents.parts.empty());
  ModelFile file;
  file.contents_ = std::move(contents);
  for (size_t i = 0; i < file.tensors().size(); ++i) {
    const absl::string_view name = file.tensors()[i].name;
    if (file.tensor_index_.emplace(name, i).second) continue;
    return absl::InvalidArgumentError(absl::StrCat("tensor ", Printable(name), " stands twice"));
  }
  return file;
}

absl::Status ModelFile::About(const absl::Status& status) const {
  const bool named = absl::StartsWith(status.message(), absl::StrCat(path_, ": "));
  if (status.ok() || path_.empty() || named) return status;
  return absl::Status(status.code(), absl::StrCat(path_, ": ", status.message()));
}

uint64_t ModelFile::file_bytes() const {
  uint64_t bytes = 0;
  for (const ModelPart& part : parts()) bytes += part.bytes.size();
  return bytes;
}

const ModelTensor* ModelFile::FindTensor(absl::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors()[found->second];
}

const MetadataValue* ModelFile::FindValue(absl::string_view key) const {
  const auto found = contents_.values.find(key);
  return found == contents_.values.end() ? nullptr : &found->second;
}

void ModelFile::DropPages(const ModelTensor& tensor) const {
  DropPages(tensor.bytes);
  if (tensor.pieces.empty()) return;
  // Pieces that are shuffled rows of one place share pages, which go only together.
  const auto [first, last] = std::minmax_element(
      tensor.pieces.begin(), tensor.pieces.end(),
      [](absl::Span<const uint8_t> a, absl::Span<const uint8_t> b) { return a.data() < b.data(); });
  const auto extent = static_cast<uint64_t>(last->end() - first->begin());
  if (extent == tensor.size_bytes()) return DropPages({first->data(), extent});
  for (const absl::Span<const uint8_t> piece : tensor.pieces) DropPages(piece);
}

void ModelFile::DropPages(absl::Span<const uint8_t> bytes) const {
  for (const ModelPart& part : parts()) {
    const absl::Span<const uint8_t> mapped = part.mapping.bytes();
    if (bytes.data() < mapped.begin() || bytes.data() >= mapped.end()) continue;
    part.mapping.DropPages(static_cast<size_t>(bytes.data() - mapped.data()), bytes.size());
  }
}

absl::StatusOr<uint64_t> ModelFile::GetUint(absl::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* number = std::get_if<uint64_t>(value)) return *number;
  if (const auto* number = std::get_if<int64_t>(value); number != nullptr && *number >= 0) {
    return static_cast<uint64_t>(*number);
  }
  return WrongType(key, "a whole number of 0 or more");
}

absl::StatusOr<double> ModelFile::GetFloat(absl::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto* number = std::get_if<uint64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<int64_t>(value)) return static_cast<double>(*number);
  return WrongType(key, "a number");
}

absl::StatusOr<bool> ModelFile::GetBool(absl::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  return WrongType(key, "a bool");
}

absl::StatusOr<absl::string_view> ModelFile::GetString(absl::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* text = std::get_if<absl::string_view>(value)) return *text;
  return WrongType(key, "a string");
}

absl::StatusOr<absl::Span<const absl::string_view>> ModelFile::GetStrings(
    absl::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* array = std::get_if<MetadataArray>(value)) {
    if (const auto* strings = std::get_if<std::vector<absl::string_view>>(&array->values)) {
      return absl::Span<const absl::string_view>(*strings);
    }
  }
  return WrongType(key, "an array of strings");
}

absl::StatusOr<std::vector<double>> ModelFile::GetNumbers(absl::string_view key) const {
  const MetadataValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  const auto* array = std::get_if<MetadataArray>(value);
  const auto* numbers =
      array == nullptr ? nullptr : std::get_if<MetadataArray::Numbers>(&array->values);
  if (numbers == nullptr) return WrongType(key, "an array of numbers");
  return std::visit(
      [](const auto& values) { return std::vector<double>(values.begin(), values.end()); },
      *numbers);
}

}  // namespace efedllm
