// Every table of kernels gives the scalar table's bits, and so do the codecs that use them.
#include "svd/kernels/codec_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "codec_world.h"
#include "svd/entropy_codec.h"
#include "svd/transform_rounding.h"
#include "tensor/half.h"

namespace efedllm {
namespace {

std::vector<const CodecKernels*> Tables() {
  std::vector<const CodecKernels*> tables;
  for (const CodecKernels* table : {Avx2CodecKernels(), Avx512CodecKernels()}) {
    if (table != nullptr) tables.push_back(table);
  }
  return tables;
}

std::vector<float> RandomFloats(Random& random, size_t n, double spread) {
  std::vector<float> values(n);
  for (float& value : values) {
    value = static_cast<float>(NormalNumber(random) * std::exp2(spread * NormalNumber(random)));
  }
  return values;
}

template <class T>
bool SameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class Entry>
std::vector<int32_t> Project(const CodecKernels& table, const std::vector<Entry>& matrix,
                             const std::vector<int16_t>& x, size_t panel_pairs, size_t panels,
                             size_t pairs, size_t rows) {
  std::vector<int32_t> y(rows * panels * kPanelOutputs, -1);
  const ProjectionArgs args{matrix.data(), panel_pairs, panels,
                            pairs,         x.data(),    panel_pairs * 2,
                            rows,          y.data(),    panels * kPanelOutputs};
  (sizeof(Entry) == 1 ? table.project_int8 : table.project_int16)(args);
  return y;
}

TEST(CodecKernels, ProjectionsAreExactModulo32Bits) {
  Random random(1);
  for (const size_t panel_pairs : {1, 7, 40}) {
    for (const size_t rows : {1, 2, 3, 5, 6, 7, 13}) {
      const size_t panels = 2, entries = panels * panel_pairs * kPanelOutputs * 2;
      std::vector<int8_t> small(entries);
      std::vector<int16_t> large(entries), x(rows * panel_pairs * 2);
      for (int8_t& value : small) value = static_cast<int8_t>(random.Next());
      for (int16_t& value : large) value = static_cast<int16_t>(random.Next());
      for (int16_t& value : x) value = static_cast<int16_t>(random.Next());
      // What overflows 32 bits.
      std::fill_n(large.begin(), 4, int16_t{-32768});
      std::fill_n(x.begin(), 2, int16_t{-32768});
      for (const size_t pairs : {size_t{0}, panel_pairs / 2, panel_pairs}) {
        for (const CodecKernels* table : Tables()) {
          EXPECT_EQ(Project(*table, small, x, panel_pairs, panels, pairs, rows),
                    Project(ScalarCodecKernels(), small, x, panel_pairs, panels, pairs, rows))
              << table->name;
          EXPECT_EQ(Project(*table, large, x, panel_pairs, panels, pairs, rows),
                    Project(ScalarCodecKernels(), large, x, panel_pairs, panels, pairs, rows))
              << table->name;
        }
      }
    }
  }
}

TEST(CodecKernels, RowLoopsGiveTheScalarBits) {
  Random random(2);
  const CodecKernels& scalar = ScalarCodecKernels();
  for (const CodecKernels* table : Tables()) {
    for (const size_t n : {1, 7, 8, 9, 31, 64, 100, 259}) {
      for (const double spread : {0.0, 3.0, 20.0}) {
        const std::vector<float> x = RandomFloats(random, n, spread);
        const std::vector<float> y = RandomFloats(random, n, spread);
        std::vector<float> a(n), b(n);
        table->center(x.data(), y.data(), n, a.data());
        scalar.center(x.data(), y.data(), n, b.data());
        EXPECT_TRUE(SameBytes(a, b));
        EXPECT_EQ(table->root_mean_square(x.data(), n), scalar.root_mean_square(x.data(), n));
        EXPECT_EQ(table->squared_error(x.data(), y.data(), n),
                  scalar.squared_error(x.data(), y.data(), n));
        std::vector<int16_t> p(n), q(n);
        EXPECT_EQ(table->round_to_int16(x.data(), n, 2.5f, p.data()),
                  scalar.round_to_int16(x.data(), n, 2.5f, q.data()));
        EXPECT_EQ(p, q);
        std::vector<int32_t> sums(n), u(n), v(n);
        for (int32_t& sum : sums) sum = static_cast<int32_t>(random.Next() >> random.Below(40));
        EXPECT_EQ(table->round_floats(x.data(), n, 2.5f, u.data()),
                  scalar.round_floats(x.data(), n, 2.5f, v.data()));
        EXPECT_EQ(u, v);
        EXPECT_EQ(table->round_sums(sums.data(), n, y.data(), u.data()),
                  scalar.round_sums(sums.data(), n, y.data(), v.data()));
        EXPECT_EQ(u, v);
        table->restore_int32(sums.data(), y.data(), n, 0.3f, a.data());
        scalar.restore_int32(sums.data(), y.data(), n, 0.3f, b.data());
        EXPECT_TRUE(SameBytes(a, b));
        table->restore_int16(p.data(), y.data(), n, 0.3f, a.data());
        scalar.restore_int16(p.data(), y.data(), n, 0.3f, b.data());
        EXPECT_TRUE(SameBytes(a, b));
        std::vector<int8_t> c(n), d(n);
        const float largest = std::fabs(*std::max_element(
            x.begin(), x.end(), [](float u, float v) { return std::fabs(u) < std::fabs(v); }));
        table->to_int8(x.data(), n, largest / 127, c.data());
        scalar.to_int8(x.data(), n, largest / 127, d.data());
        EXPECT_EQ(c, d);
        table->from_int8(c.data(), n, 0.7f, a.data());
        scalar.from_int8(c.data(), n, 0.7f, b.data());
        EXPECT_TRUE(SameBytes(a, b));
      }
    }
  }
}

TEST(CodecKernels, HalvesAreThoseOfTheTensors) {
  std::vector<const CodecKernels*> tables = Tables();
  tables.push_back(&ScalarCodecKernels());
  Random random(3);
  for (const CodecKernels* table : tables) {
    std::vector<uint16_t> halves(65536), back(65536);
    for (size_t i = 0; i < 65536; ++i) halves[i] = static_cast<uint16_t>(i);
    std::vector<float> floats(65536);
    table->from_f16(halves.data(), 65536, floats.data());
    table->to_f16(floats.data(), 65536, back.data());
    for (size_t i = 0; i < 65536; ++i) {
      if ((i & 0x7fff) > 0x7c00) continue;  // NaN
      ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]),
                std::bit_cast<uint32_t>(F16ToF32(static_cast<uint16_t>(i))));
      ASSERT_EQ(back[i], i);
    }
    for (float& value : floats) {
      do {
        value = std::bit_cast<float>(static_cast<uint32_t>(random.Next()));
      } while (!std::isfinite(value));
    }
    table->to_f16(floats.data(), 65536, back.data());
    for (size_t i = 0; i < 65536; ++i) ASSERT_EQ(back[i], F32ToF16(floats[i])) << floats[i];
  }
}

// With each table: the bytes, and what is decoded from them.
void ExpectSameEverywhere(const BoundaryBasis& basis, ConstMatrixRef rows, CodecSetting setting) {
  const PackedMatrix forward(basis.forward, basis.coefficients(), true);
  const PackedMatrix backward(basis.backward, basis.coefficients(), false);
  EntropyCodec scalar(basis, setting, &forward, &backward, ScalarCodecKernels());
  std::string expected;
  scalar.Encode(rows, ErrorMeasure::kBound, expected);
  Matrix out(rows.rows, rows.cols);
  ASSERT_TRUE(scalar.Decode(Bytes(expected), out.ref()).ok());
  for (const CodecKernels* table : Tables()) {
    EntropyCodec codec(basis, setting, &forward, &backward, *table);
    std::string bytes;
    codec.Encode(rows, ErrorMeasure::kBound, bytes);
    EXPECT_EQ(bytes, expected) << table->name << " " << CodecLabel(setting);
    Matrix decoded(rows.rows, rows.cols);
    ASSERT_TRUE(codec.Decode(Bytes(bytes), decoded.ref()).ok());
    EXPECT_EQ(std::memcmp(decoded.row(0), out.row(0), rows.rows * rows.cols * sizeof(float)), 0);
  }
}

TEST(CodecKernels, CodecsGiveTheSameBytesWithAllOfThem) {
  GaussianSource source(72, 4, 3);
  Matrix rows = source.Rows(600);
  for (size_t r = 0; r < 600; ++r) rows.row(r)[9] *= 60;
  BoundaryBasis basis = *BasisOf(rows);
  rows.row(7)[3] = 1e5f;
  for (const CodecId id : {CodecId::kScalar, CodecId::kKlt}) {
    for (const uint8_t step : {8, 40, 72, 130}) {
      ExpectSameEverywhere(basis, rows.ref(), {id, step});
    }
  }
}

TEST(CodecKernels, SmallIntegersServeTheCoarserSteps) {
  GaussianSource source(72, 4, 3);
  const Matrix rows = source.Rows(600);
  BoundaryBasis basis = *BasisOf(rows);
  const Eigen::Index n = 72;
  Eigen::MatrixXd backward(n, n);
  for (Eigen::Index j = 0; j < n; ++j) {
    for (Eigen::Index i = 0; i < n; ++i) {
      backward(i, j) = basis.backward_scale * basis.backward.values[static_cast<size_t>(j * n + i)];
    }
  }
  basis.forward_scale.clear();
  basis.multiplier.clear();
  const BoundaryBasis fine = *BasisOf(rows);
  RoundTransform(backward, 1, 1, basis);
  for (const uint8_t step : {24, 48, 64}) {
    ExpectSameEverywhere(basis, rows.ref(), {CodecId::kKlt, step});
    double error[2];
    for (const bool small : {false, true}) {
      ActivationCodec codec(72, std::make_shared<const BoundaryBasis>(small ? basis : fine));
      std::string bytes;
      const EncodingReport report =
          codec.Encode({CodecId::kKlt, step}, rows.ref(), bytes, nullptr, ErrorMeasure::kExact);
      EXPECT_EQ(report.plain_rows, 0u);
      error[small ? 1 : 0] = report.squared_error;
    }
    EXPECT_LT(error[1], 1.15 * error[0]) << +step;
  }
}

}  // namespace
}  // namespace efedllm
