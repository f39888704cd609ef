#include "adversary/cheat_weights.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "common/check.h"
#include "layers/packed_matrix.h"
#include "tensor/half.h"
#include "tensor/quantize.h"

namespace efedllm {
namespace {

constexpr size_t kBlock = 32;

// Row `row` of a packed matrix of Q8_0; layers/packed_matrix.h says where its values are.
std::vector<float> RowOf(const PackedMatrix& matrix, size_t row) {
  const size_t blocks = matrix.cols / kBlock, r = row % kGroupRows;
  const uint8_t* codes =
      matrix.data + row / kGroupRows * PackedGroupBytes(matrix.dtype, matrix.cols);
  const uint8_t* scales = codes + blocks * kBlock * kGroupRows;
  std::vector<float> values(matrix.cols);
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t block = i / kBlock, four = i % kBlock / 4;
    uint16_t scale = 0;
    std::memcpy(&scale, scales + (block * kGroupRows + r) * sizeof scale, sizeof scale);
    const auto code = static_cast<int8_t>(codes[((block * 8 + four) * kGroupRows + r) * 4 + i % 4]);
    values[i] = F16ToF32(scale) * static_cast<float>(code);
  }
  return values;
}

void Replace(StageTensor& tensor, DType dtype, const std::vector<uint8_t>& gguf) {
  tensor.spec.dtype = dtype;
  auto packed = PackedTensor::FromGguf(tensor.spec, gguf);
  CHECK(packed.ok());
  tensor.data = *std::move(packed);
}

// "blk.7.attn_output.weight": 7; none: -1.
int LayerOf(const std::string& name) {
  int layer = -1;
  const size_t end = name.find('.', 4);
  if (!absl::StartsWith(name, "blk.") || end == std::string::npos) return -1;
  return absl::SimpleAtoi(absl::string_view(name).substr(4, end - 4), &layer) ? layer : -1;
}

}  // namespace

void LowerToQ4(std::vector<StageTensor>& tensors) {
  for (StageTensor& tensor : tensors) {
    if (tensor.spec.dtype != DType::kQ8_0 || tensor.spec.rows == 1) continue;
    const PackedMatrix matrix = tensor.data->matrix();
    const size_t row_bytes = *RowBytes(DType::kQ4_0, matrix.cols);
    std::vector<uint8_t> gguf(matrix.rows * row_bytes);
    for (size_t row = 0; row < matrix.rows; ++row) {
      const std::vector<float> values = RowOf(matrix, row);
      QuantizeRow(DType::kQ4_0, values.data(), values.size(), nullptr,
                  gguf.data() + row * row_bytes);
    }
    Replace(tensor, DType::kQ4_0, gguf);
  }
}

void SkipLastLayer(std::vector<StageTensor>& tensors) {
  int last = -1;
  for (const StageTensor& tensor : tensors) last = std::max(last, LayerOf(tensor.spec.name));
  for (StageTensor& tensor : tensors) {
    const bool adds = absl::EndsWith(tensor.spec.name, ".attn_output.weight") ||
                      absl::EndsWith(tensor.spec.name, ".ffn_down.weight");
    if (!adds || LayerOf(tensor.spec.name) != last) continue;
    Replace(tensor, tensor.spec.dtype, std::vector<uint8_t>(tensor.spec.bytes()));
  }
}

}  // namespace efedllm
