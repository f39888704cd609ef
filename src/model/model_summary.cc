#include "model/model_summary.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "common/logging.h"
#include "tensor/dtype.h"

namespace efedllm {
namespace {

// general.file_type, as llama.cpp numbers its mixtures.
constexpr std::pair<uint64_t, absl::string_view> kMixtures[] = {
    {0, "F32"},     {1, "F16"},     {2, "Q4_0"},    {3, "Q4_1"},    {7, "Q8_0"},    {8, "Q5_0"},
    {9, "Q5_1"},    {10, "Q2_K"},   {11, "Q3_K_S"}, {12, "Q3_K_M"}, {13, "Q3_K_L"}, {14, "Q4_K_S"},
    {15, "Q4_K_M"}, {16, "Q5_K_S"}, {17, "Q5_K_M"}, {18, "Q6_K"},   {21, "Q2_K_S"}, {25, "IQ4_NL"},
    {30, "IQ4_XS"}, {32, "BF16"},   {38, "MXFP4"},
};

std::string TextOf(const ModelFile& file, absl::string_view key) {
  const absl::StatusOr<absl::string_view> text = file.GetString(key);
  return text.ok() ? Printable(*text) : "";
}

std::string MixtureOf(const ModelFile& file, const std::vector<TypeSummary>& types) {
  const absl::StatusOr<uint64_t> number = file.GetUint("general.file_type");
  for (const auto& [mixture, name] : kMixtures) {
    if (number.ok() && *number == mixture) return std::string(name);
  }
  return types.empty() ? "" : types[0].type;
}

}  // namespace

ModelSummary SummarizeModel(const ModelFile& file) {
  ModelSummary summary;
  summary.architecture = TextOf(file, "general.architecture");
  summary.name = TextOf(file, "general.name");
  std::map<uint32_t, TypeSummary> types;
  for (const ModelTensor& tensor : file.tensors()) {
    uint64_t parameters = 1;
    for (const uint64_t extent : tensor.shape) parameters *= extent;
    TypeSummary& type = types[tensor.gguf_type];
    type.tensors += 1;
    type.parameters += parameters;
    type.bytes += tensor.size_bytes();
    summary.parameters += parameters;
    summary.bytes += tensor.size_bytes();
  }
  for (auto& [number, type] : types) {
    type.type = std::string(GgufTypeName(number));
    type.supported = DTypeFromGguf(number).has_value();
    summary.types.push_back(std::move(type));
  }
  std::stable_sort(summary.types.begin(), summary.types.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  summary.quantization = MixtureOf(file, summary.types);
  return summary;
}

std::string ModelSummary::title() const {
  const double count = static_cast<double>(parameters);
  const std::string size =
      count >= 1e9 ? absl::StrFormat("%.1fB", count / 1e9) : absl::StrFormat("%.1fM", count / 1e6);
  return absl::StrCat(architecture.empty() ? "?" : architecture, " ", size, " ", quantization);
}

std::string FormatParameters(uint64_t parameters) {
  const double count = static_cast<double>(parameters);
  if (parameters >= 1'000'000'000) return absl::StrFormat("%.2f B", count / 1e9);
  if (parameters >= 1'000'000) return absl::StrFormat("%.2f M", count / 1e6);
  return absl::StrCat(parameters);
}

}  // namespace efedllm
