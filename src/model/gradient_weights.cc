#include "model/gradient_weights.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "tensor/blocks.h"
#include "tensor/dtype.h"

namespace efedllm {
namespace {

constexpr uint64_t kRowsPerChunk = 16;

// Stacks rows of one tensor at [.., at) of the packed W. One row of W is, 16 values at a time, a
// row of each of the packed groups: nothing has to be turned.
absl::Status Stack(const ModelFile& file, const TensorRows& part, uint64_t cols, uint64_t at,
                   uint64_t all_rows, ThreadTeam& team, float* packed) {
  const ModelTensor* tensor = file.FindTensor(part.name);
  if (tensor == nullptr) {
    return absl::NotFoundError(absl::StrCat("the model has no tensor ", part.name));
  }
  const std::optional<DType> dtype = DTypeFromGguf(tensor->gguf_type);
  const std::optional<uint64_t> row_bytes =
      dtype ? RowBytes(*dtype, cols) : std::optional<uint64_t>();
  if (!row_bytes || tensor->size_bytes() / *row_bytes < part.first + part.rows) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", part.name, " has another shape"));
  }
  const uint64_t chunks = (part.rows + kRowsPerChunk - 1) / kRowsPerChunk;
  team.ParallelFor(chunks, [&](size_t chunk) {
    std::vector<uint8_t> scratch;
    std::vector<float> values(cols);
    const uint64_t end = std::min(part.rows, (chunk + 1) * kRowsPerChunk);
    for (uint64_t row = chunk * kRowsPerChunk; row < end; ++row) {
      const absl::Span<const uint8_t> bytes =
          tensor->Bytes((part.first + row) * *row_bytes, *row_bytes, scratch);
      DequantizeRow(*dtype, bytes.data(), cols, values.data());
      for (uint64_t col = 0; col < cols; col += kGroupRows) {
        float* to = packed + col * all_rows + (at + row) * kGroupRows;
        std::copy_n(values.data() + col, std::min<uint64_t>(kGroupRows, cols - col), to);
      }
    }
  });
  file.DropPages(*tensor);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LayerTensorMap> LayerTensorMap::Load(const ModelConfig& config,
                                                    const ModelFile& file, uint32_t layer,
                                                    Compute& compute) {
  ASSIGN_OR_RETURN(
      const std::vector<StageTensor> tensors,
      LoadStageTensors(config, file, {layer, layer + 1}, {.team = compute.team.get()}));
  const std::string prefix = absl::StrCat("blk.", layer, ".");
  LayerTensorMap map;
  for (const StageTensor& tensor : tensors) {
    if (!absl::StartsWith(tensor.spec.name, prefix)) continue;  // RoPE's factors
    map.tensors_[tensor.spec.name.substr(prefix.size())] = tensor.data;
  }
  return map;
}

absl::Span<const float> LayerTensorMap::Vector(absl::string_view part) const {
  const auto found = tensors_.find(part);
  return found == tensors_.end() ? absl::Span<const float>() : found->second->vector();
}

Projection LayerTensorMap::Rows(absl::string_view part, size_t first, size_t rows) const {
  const absl::Span<const float> bias = Vector(absl::StrCat(part, ".bias"));
  return {tensors_.at(absl::StrCat(part, ".weight"))->matrix().Slice(first, rows),
          bias.empty() ? bias : bias.subspan(first, rows)};
}

absl::Status TransposedMatrix::Load(const ModelFile& file, absl::Span<const TensorRows> parts,
                                    uint64_t cols, ThreadTeam& team) {
  rows_ = 0;
  cols_ = cols;
  for (const TensorRows& part : parts) rows_ += part.rows;
  const uint64_t bytes = PackedMatrixBytes(DType::kF32, cols_, rows_);
  if (bytes > reserved_) {
    ASSIGN_OR_RETURN(memory_, WeightMemory::Allocate(bytes));
    reserved_ = bytes;
  }
  uint64_t at = 0;
  for (const TensorRows& part : parts) {
    RETURN_IF_ERROR(
        Stack(file, part, cols_, at, rows_, team, reinterpret_cast<float*>(memory_->data())));
    at += part.rows;
  }
  return absl::OkStatus();
}

PackedMatrix TransposedMatrix::matrix() const {
  return {.dtype = DType::kF32, .rows = cols_, .cols = rows_, .data = memory_->data()};
}

}  // namespace efedllm
