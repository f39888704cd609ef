// The typed look-ups of GgufFile.
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "model/gguf.h"

namespace efedllm {
namespace {

absl::Status Missing(absl::string_view key) {
  return absl::NotFoundError(absl::StrCat("the GGUF has no metadata key ", Printable(key)));
}

absl::Status WrongType(absl::string_view key, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat("GGUF metadata key ", Printable(key), " is not ", wanted));
}

}  // namespace

const GgufTensor* GgufFile::FindTensor(absl::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufValue* GgufFile::FindValue(absl::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

void GgufFile::DropPages(const GgufTensor& tensor) const {
  if (mapping_.bytes().empty() || tensor.bytes.empty()) return;
  mapping_.DropPages(static_cast<size_t>(tensor.bytes.data() - bytes_.data()), tensor.bytes.size());
}

absl::StatusOr<uint64_t> GgufFile::GetUint(absl::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* number = std::get_if<uint64_t>(value)) return *number;
  if (const auto* number = std::get_if<int64_t>(value); number != nullptr && *number >= 0) {
    return static_cast<uint64_t>(*number);
  }
  return WrongType(key, "a whole number of 0 or more");
}

absl::StatusOr<double> GgufFile::GetFloat(absl::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto* number = std::get_if<uint64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<int64_t>(value)) return static_cast<double>(*number);
  return WrongType(key, "a number");
}

absl::StatusOr<bool> GgufFile::GetBool(absl::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  return WrongType(key, "a bool");
}

absl::StatusOr<absl::string_view> GgufFile::GetString(absl::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* text = std::get_if<absl::string_view>(value)) return *text;
  return WrongType(key, "a string");
}

absl::StatusOr<absl::Span<const absl::string_view>> GgufFile::GetStrings(
    absl::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  if (const auto* array = std::get_if<GgufArray>(value)) {
    if (const auto* strings = std::get_if<std::vector<absl::string_view>>(&array->values)) {
      return absl::Span<const absl::string_view>(*strings);
    }
  }
  return WrongType(key, "an array of strings");
}

absl::StatusOr<std::vector<double>> GgufFile::GetNumbers(absl::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) return Missing(key);
  const auto* array = std::get_if<GgufArray>(value);
  const auto* numbers =
      array == nullptr ? nullptr : std::get_if<GgufArray::Numbers>(&array->values);
  if (numbers == nullptr) return WrongType(key, "an array of numbers");
  return std::visit(
      [](const auto& values) { return std::vector<double>(values.begin(), values.end()); },
      *numbers);
}

}  // namespace efedllm
