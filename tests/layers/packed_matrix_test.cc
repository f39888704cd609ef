#include "layers/packed_matrix.h"

#include <vector>

#include "gtest/gtest.h"
#include "layers/kernels/kernel_table.h"
#include "layers/layers_world.h"

namespace efedllm {
namespace {

// Activations of 127 in one place and zeros elsewhere read out each weight, 127 times and exactly
// where d and m are 1.
TEST(PackedMatrix, EveryWeightIsWhereTheDefinitionReadsIt) {
  Random random(30);
  for (const QuantFormat& format : kQuantFormats) {
    const DType dtype = format.dtype;
    const size_t rows = 37, cols = 512;
    std::vector<uint8_t> gguf = RandomGguf(random, dtype, rows, cols);
    for (size_t i = 0; i < gguf.size(); i += BlockBytes(dtype)) {
      HasE8m0(format) ? void(gguf[i] = 128) : StoreF16(1.0f, &gguf[i + format.d_offset]);
      if (HasM(format)) StoreF16(1.0f, &gguf[i + format.m_offset]);
    }
    const OwnedMatrix w(dtype, rows, cols, gguf);
    std::vector<float> x(cols * cols, 0.0f), y(cols * rows), row(cols);
    for (size_t k = 0; k < cols; ++k) x[k * cols + k] = 127.0f;
    std::vector<QuantBlock> quantized(x.size() / kQuantValues);
    ScalarKernels().quantize(x.data(), quantized.size(), quantized.data());
    MatmulFor(ScalarKernels(), dtype)({.w = w.view().data,
                                       .group_bytes = PackedGroupBytes(dtype, cols),
                                       .rows = rows,
                                       .k = cols,
                                       .x = quantized.data(),
                                       .x_stride = cols / kQuantValues,
                                       .columns = cols,
                                       .y = y.data(),
                                       .y_stride = rows});
    for (size_t r = 0; r < rows; ++r) {
      DequantizeRow(dtype, gguf.data() + r * RowBytes(dtype, cols).value(), cols, row.data());
      for (size_t k = 0; k < cols; ++k) {
        ASSERT_EQ(y[k * rows + r], 127.0f * row[k]) << DTypeName(dtype) << " " << r << "," << k;
      }
    }
  }
}

TEST(PackedMatrix, FloatsStandBesideThoseOfTheOtherRows) {
  Random random(31);
  const size_t rows = 21, cols = 45;
  for (const auto& [dtype, bytes] : {std::pair{DType::kF32, 4}, std::pair{DType::kF16, 2}}) {
    const std::vector<uint8_t> gguf = RandomGguf(random, dtype, rows, cols);
    const OwnedMatrix w(dtype, rows, cols, gguf);
    for (size_t r = 0; r < rows; ++r) {
      const uint8_t* group = w.view().data + r / 16 * PackedGroupBytes(dtype, cols);
      for (size_t k = 0; k < cols; ++k) {
        EXPECT_EQ(
            std::memcmp(group + (k * 16 + r % 16) * bytes, &gguf[(r * cols + k) * bytes], bytes),
            0);
      }
    }
  }
}

// A thread may take any groups, whatever lay in the memory before.
TEST(PackedMatrix, GroupsPackOneByOneOntoAnyBytes) {
  Random random(32);
  for (DType dtype : kAllDtypes) {
    const size_t rows = 50, cols = 256;
    const std::vector<uint8_t> gguf = RandomGguf(random, dtype, rows, cols);
    const OwnedMatrix whole(dtype, rows, cols, gguf);
    std::vector<uint8_t> parts(PackedMatrixBytes(dtype, rows, cols), 0xee);
    for (size_t g : {2, 0, 3, 1})
      PackGroups(dtype, rows, cols, gguf.data(), parts.data(), g, g + 1);
    EXPECT_EQ(std::memcmp(parts.data(), whole.view().data, parts.size()), 0) << DTypeName(dtype);
  }
}

}  // namespace
}  // namespace efedllm
