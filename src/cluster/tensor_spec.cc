#include "cluster/tensor_spec.h"

#include "common/check.h"

namespace efedllm {
namespace {

void AppendLittleEndian(uint64_t value, std::vector<uint8_t>& out) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<uint8_t>(value >> shift));
}

}  // namespace

uint64_t TensorSpec::bytes() const {
  const std::optional<uint64_t> row = RowBytes(dtype, cols);
  CHECK(row.has_value());
  return *row * rows;
}

Sha256Digest TensorSpec::id() const {
  std::vector<uint8_t> text;
  text.reserve(24 + chunks.size() * sizeof(Sha256Digest));
  AppendLittleEndian(static_cast<uint64_t>(dtype), text);
  AppendLittleEndian(rows, text);
  AppendLittleEndian(cols, text);
  for (const Sha256Digest& chunk : chunks) text.insert(text.end(), chunk.begin(), chunk.end());
  return Sha256(text);
}

}  // namespace efedllm
