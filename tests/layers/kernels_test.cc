// Every table of kernels equals the scalar one, bit for bit.
#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "layers/kernels/kernel_table.h"
#include "layers/layers_world.h"

namespace efedllm {
namespace {

class Kernels : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& scalar_ = ScalarKernels();
  const KernelTable& table_ = *GetParam();
};

INSTANTIATE_TEST_SUITE_P(Isa, Kernels, testing::ValuesIn(RunnableKernels()),
                         [](const auto& table) { return std::string(table.param->name); });

std::vector<QuantBlock> Quantized(const KernelTable& table, const std::vector<float>& x) {
  std::vector<QuantBlock> blocks(x.size() / kQuantValues);
  table.quantize(x.data(), blocks.size(), blocks.data());
  return blocks;
}

// y: [columns, rows + gap]; the gap keeps its 7s if nothing writes beyond a column.
std::vector<float> Product(const KernelTable& table, const PackedMatrix& w,
                           const std::vector<float>& x, const std::vector<QuantBlock>& quantized,
                           size_t columns) {
  constexpr size_t kGap = 3;
  std::vector<float> y(columns * (w.rows + kGap), 7.0f);
  const bool int8 = BlockValues(w.dtype) > 1;
  MatmulFor(table, w.dtype)({.w = w.data,
                             .group_bytes = PackedGroupBytes(w.dtype, w.cols),
                             .rows = w.rows,
                             .k = w.cols,
                             .x = int8 ? static_cast<const void*>(quantized.data()) : x.data(),
                             .x_stride = int8 ? w.cols / kQuantValues : w.cols,
                             .columns = columns,
                             .y = y.data(),
                             .y_stride = w.rows + kGap});
  return y;
}

TEST_P(Kernels, MatmulsEqualTheDefinition) {
  constexpr uint64_t kSeed = 20;
  Random random(kSeed);
  for (DType dtype : kAllDtypes) {
    for (int i = 0; i < 12; ++i) {
      // One row, as many as a decode batch, and more than a panel.
      const size_t rows = 1 + random.Below(70);
      const size_t columns = i == 0 ? 1 : i == 11 ? 60 + random.Below(80) : 1 + random.Below(19);
      const size_t cols = BlockValues(dtype) * (1 + random.Below(BlockValues(dtype) == 256 ? 3
                                                                 : i % 2                   ? 9
                                                                                           : 172));
      const OwnedMatrix w = OwnedMatrix::Random(random, dtype, rows, cols);
      const std::vector<float> x = Gaussians(random, columns * cols);
      std::vector<QuantBlock> quantized;
      if (BlockValues(dtype) > 1) quantized = Quantized(scalar_, x);
      EXPECT_TRUE(SameBits(Product(table_, w.view(), x, quantized, columns),
                           Product(scalar_, w.view(), x, quantized, columns)))
          << DTypeName(dtype) << " " << rows << "x" << cols << ", " << columns << " columns, seed "
          << kSeed;
    }
  }
}

// The largest numbers that the formats can hold: nothing saturates or overflows on the way.
TEST_P(Kernels, QuantizedMatmulsAreExactAtTheExtremes) {
  for (const QuantFormat& format : kQuantFormats) {
    const DType dtype = format.dtype;
    for (uint8_t fill : {0x00, 0x80, 0x7f, 0xff, 0x88}) {
      const size_t rows = 16, cols = 256;
      std::vector<uint8_t> gguf(rows * RowBytes(dtype, cols).value(), fill);
      for (size_t i = 0; i < gguf.size(); i += BlockBytes(dtype)) {
        HasE8m0(format) ? void(gguf[i] = 128) : StoreF16(1.0f, &gguf[i + format.d_offset]);
        if (HasM(format)) StoreF16(1.0f, &gguf[i + format.m_offset]);
      }
      const OwnedMatrix w(dtype, rows, cols, gguf);
      for (float sign : {1.0f, -1.0f}) {
        const std::vector<float> x(cols, 127.0f * sign);
        const std::vector<QuantBlock> quantized = Quantized(scalar_, x);
        ASSERT_EQ(quantized[0].q[0], 127 * sign);
        std::vector<float> row(cols);
        DequantizeRow(dtype, gguf.data(), cols, row.data());
        double exact = 0;
        for (size_t k = 0; k < cols; ++k) exact += double{row[k]} * x[k];
        const std::vector<float> y = Product(table_, w.view(), x, quantized, 1);
        for (size_t r = 0; r < rows; ++r) {
          EXPECT_EQ(y[r], static_cast<float>(exact)) << DTypeName(dtype) << " " << int{fill};
        }
      }
    }
  }
}

// Zeros of both signs, subnormals and large scales, and activations from nothing to large.
TEST_P(Kernels, QuantizedMatmulsEqualTheDefinitionWhateverTheScales) {
  constexpr uint64_t kSeed = 25;
  Random random(kSeed);
  const uint16_t scales[] = {0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xfbff};
  for (const QuantFormat& format : kQuantFormats) {
    const size_t rows = 32, cols = 512, columns = 13;
    std::vector<uint8_t> gguf = RandomGguf(random, format.dtype, rows, cols);
    for (size_t i = 0; i < gguf.size(); i += BlockBytes(format.dtype)) {
      if (HasE8m0(format)) {
        gguf[i] = random.Below(2) == 0 ? random.Below(4) : random.Below(200);
      } else {
        std::memcpy(&gguf[i + format.d_offset], &scales[random.Below(8)], 2);
      }
      if (HasM(format)) std::memcpy(&gguf[i + format.m_offset], &scales[random.Below(8)], 2);
    }
    const OwnedMatrix w(format.dtype, rows, cols, gguf);
    std::vector<float> x = Gaussians(random, columns * cols);
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] *= std::ldexp(1.0f, static_cast<int>(i / 32 % 16) * 8 - 110);
      if (i / 32 % 16 == 3) x[i] = i % 2 == 0 ? 0.0f : -0.0f;
    }
    const std::vector<QuantBlock> quantized = Quantized(scalar_, x);
    EXPECT_TRUE(SameBits(Product(table_, w.view(), x, quantized, columns),
                         Product(scalar_, w.view(), x, quantized, columns)))
        << DTypeName(format.dtype) << ", seed " << kSeed;
  }
}

}  // namespace
}  // namespace efedllm
