#include "app/compressed_file.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/factors.h"

namespace efedllm {
namespace {

constexpr uint64_t kCopyBytes = 4u << 20;

}  // namespace

CompressedFile::CompressedFile(const ModelFile& file, std::vector<MatrixPlace> places,
                               absl::string_view method)
    : file_(file), places_(std::move(places)), metadata_(MetadataOf(file)) {
  std::erase_if(metadata_, [](const auto& entry) {
    return absl::StartsWith(entry.first, "efedllm.factors.");
  });
  metadata_.emplace_back(kFactorsVersionKey, kFactorsVersion);
  metadata_.emplace_back("efedllm.factors.method", method);
  absl::flat_hash_set<absl::string_view> matrices;
  for (const MatrixPlace& place : places_) matrices.insert(place.spec.name);
  for (const ModelTensor& tensor : file.tensors()) {
    if (!matrices.contains(tensor.name)) others_.push_back(&tensor);
  }
}

std::vector<GgufTensor> CompressedFile::OtherTensors() const {
  std::vector<GgufTensor> tensors;
  tensors.reserve(others_.size() + 3 * places_.size());
  for (const ModelTensor* tensor : others_) {
    tensors.push_back(
        {std::string(tensor->name), tensor->gguf_type, tensor->shape, tensor->size_bytes()});
  }
  return tensors;
}

uint64_t CompressedFile::FixedBytes() const {
  std::vector<GgufTensor> tensors = OtherTensors();
  for (const MatrixPlace& place : places_) {
    tensors.push_back({place.spec.name, 0, {1, 1}, 0});
    tensors.push_back({FactorAName(place.part), 0, {1, 1}, 0});
    tensors.push_back({FactorBName(place.part), 0, {1, 1}, 0});
  }
  return GgufFileBytes(metadata_, tensors);
}

uint64_t CompressedFile::Bytes(const ModelVariant& variant) const {
  return GgufFileBytes(metadata_, Tensors(variant));
}

std::vector<GgufTensor> CompressedFile::Tensors(const ModelVariant& variant) const {
  std::vector<GgufTensor> tensors = OtherTensors();
  const auto add = [&](std::string name, DType dtype, uint64_t rows, uint64_t cols) {
    tensors.push_back({std::move(name),
                       static_cast<uint32_t>(dtype),
                       {cols, rows},
                       *RowBytes(dtype, cols) * rows});
  };
  for (size_t i = 0; i < variant.size(); ++i) {
    const MatrixPlace& place = places_[i];
    const MatrixForm& form = variant[i];
    const uint64_t rows = place.spec.rows, cols = place.spec.cols;
    if (form.kind == FormKind::kKept) add(place.spec.name, place.spec.dtype, rows, cols);
    if (form.kind == FormKind::kQuantized || form.kind == FormKind::kCorrected) {
      add(place.spec.name, form.base, rows, cols);
    }
    if (!form.has_factors()) continue;
    add(FactorAName(place.part), form.factor, form.rank, cols);
    add(FactorBName(place.part), form.factor, rows, form.rank);
  }
  return tensors;
}

absl::StatusOr<std::unique_ptr<GgufWriter>> CompressedFile::Begin(
    const std::string& path, const ModelVariant& variant) const {
  ASSIGN_OR_RETURN(std::unique_ptr<GgufWriter> writer,
                   GgufWriter::Create(path, metadata_, Tensors(variant)));
  for (const ModelTensor* tensor : others_) RETURN_IF_ERROR(Copy(*tensor, *writer));
  return writer;
}

absl::Status CompressedFile::Keep(const MatrixPlace& place, GgufWriter& writer) const {
  return Copy(*file_.FindTensor(place.spec.name), writer);
}

absl::Status CompressedFile::Copy(const ModelTensor& tensor, GgufWriter& writer) const {
  std::vector<uint8_t> scratch;
  for (uint64_t first = 0; first < tensor.size_bytes(); first += kCopyBytes) {
    const auto bytes =
        tensor.Bytes(first, std::min(kCopyBytes, tensor.size_bytes() - first), scratch);
    RETURN_IF_ERROR(writer.Append(bytes));
    file_.DropPages(bytes);
  }
  return absl::OkStatus();
}

}  // namespace efedllm
