#include "svd/boundary_basis.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "codec_world.h"
#include "svd/basis_builder.h"
#include "svd/transform_rounding.h"

namespace efedllm {
namespace {

BoundaryBasis SomeBasis() {
  GaussianSource source(20, 3, 1);
  Matrix rows = source.Rows(500);
  for (size_t r = 0; r < 500; ++r) rows.row(r)[7] *= 30;
  BoundaryBasis basis = *BasisOf(std::move(rows));
  basis.klt.kl = {0.25f, 2.5f};
  return basis;
}

TEST(BoundaryBasis, SurvivesItsBytes) {
  const BoundaryBasis basis = SomeBasis();
  const std::string bytes = basis.Serialize();
  EXPECT_LE(bytes.size(), MaxBasisBytes(20));
  const absl::StatusOr<BoundaryBasis> parsed = ParseBoundaryBasis(Bytes(bytes));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Serialize(), bytes);
  EXPECT_EQ(parsed->id(), basis.id());
  EXPECT_EQ(parsed->massive, std::vector<uint32_t>{7});
  EXPECT_EQ(parsed->klt.kl, basis.klt.kl);
}

TEST(BoundaryBasis, SurvivesItsBytesWithSmallIntegers) {
  BoundaryBasis basis = SomeBasis();
  const auto n = static_cast<Eigen::Index>(basis.coefficients());
  basis.multiplier.clear();
  basis.forward_scale.clear();
  RoundTransform(Eigen::MatrixXd::Identity(n, n) * 0.3, 0.3, 1, basis);
  const std::string bytes = basis.Serialize();
  const absl::StatusOr<BoundaryBasis> parsed = ParseBoundaryBasis(Bytes(bytes));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Serialize(), bytes);
}

TEST(BoundaryBasis, EveryCutIsRefused) {
  const std::string bytes = SomeBasis().Serialize();
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_FALSE(ParseBoundaryBasis(Bytes(bytes.substr(0, size))).ok()) << size;
  }
  EXPECT_FALSE(ParseBoundaryBasis(Bytes(bytes + '\0')).ok());
}

TEST(BoundaryBasis, NumbersOutOfRangeAreRefused) {
  const auto refused = [](auto change) {
    BoundaryBasis basis = SomeBasis();
    change(basis);
    return !ParseBoundaryBasis(Bytes(basis.Serialize())).ok();
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(refused([](BoundaryBasis&) {}));
  EXPECT_TRUE(refused([&](BoundaryBasis& b) { b.mean[3] = nan; }));
  EXPECT_TRUE(refused([&](BoundaryBasis& b) { b.largest_scale = nan; }));
  EXPECT_TRUE(refused([&](BoundaryBasis& b) { b.klt.kl[1] = nan; }));
  EXPECT_TRUE(refused([&](BoundaryBasis& b) { b.klt.kl[0] = -1; }));
  EXPECT_TRUE(refused([&](BoundaryBasis& b) { b.klt.noise_gain = 0; }));
  EXPECT_TRUE(refused([&](BoundaryBasis& b) { b.forward_scale[0] = INFINITY; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.backward_scale = 0.3f; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.backward_scale = 2; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.backward_norm = 0; }));
  EXPECT_TRUE(refused([&](BoundaryBasis& b) { b.forward_residual = nan; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.forward_residual = -1; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.multiplier[2] = 0; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.multiplier[2] = kMaxMultiplier + 1; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.massive[0] = 20; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.d_model = 21; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.d_model = 0xffffffff; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.forward.entry_bytes = 3; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.scalar.tables[0][4].frequency[0] += 1; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.klt.tables[1][30].mean = 0; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.scale_frequency[0] = 0; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.scale_frequency[0] = 8192; }));
  EXPECT_TRUE(refused([](BoundaryBasis& b) { b.first_scale = 255; }));
}

TEST(BasisBuilder, RefusesSamplesThatAreNone) {
  EXPECT_FALSE(BuildBasis({}).ok());
  Matrix rows(4, 8);
  rows.row(1)[2] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(BuildBasis({0, rows, {}}).ok());
  EXPECT_FALSE(BuildBasis({0, Matrix(4, 8), Eigen::MatrixXd::Identity(7, 7)}).ok());
}

TEST(BasisBuilder, FewOrEqualRowsStillMakeABasis) {
  for (const size_t rows : {1, 3}) {
    for (const float value : {0.0f, 2.5f}) {
      Matrix sample(rows, 24);
      std::fill(sample.ref().span().begin(), sample.ref().span().end(), value);
      const absl::StatusOr<BoundaryBasis> basis = BuildBasis({2, sample, {}});
      ASSERT_TRUE(basis.ok()) << basis.status();
      const absl::Status parsed = ParseBoundaryBasis(Bytes(basis->Serialize())).status();
      EXPECT_TRUE(parsed.ok()) << parsed;
    }
  }
}

TEST(BasisBuilder, FindsTheSpectrum) {
  GaussianSource source(48, 4, 3);
  const std::shared_ptr<const BoundaryBasis> basis = BasisOf(source.Rows(20000));
  EXPECT_TRUE(basis->massive.empty());
  for (size_t j = 0; j < 48; ++j) {
    const double sigma = source.sigma()(static_cast<Eigen::Index>(j));
    EXPECT_NEAR(basis->spectrum[j], sigma * sigma / 48, 0.2 * sigma * sigma / 48);
    EXPECT_NEAR(basis->klt.log_sigma[j], 64 * std::log2(sigma), 16);
  }
  EXPECT_NEAR(basis->klt.noise_gain, 1, 1e-3);
}

TEST(BasisBuilder, DirectionsThatMatterGetSmallErrors) {
  GaussianSource source(32, 2, 3);
  Eigen::MatrixXd fisher = Eigen::MatrixXd::Identity(32, 32);
  fisher(5, 5) = 100;
  const std::shared_ptr<const BoundaryBasis> basis = BasisOf(source.Rows(4000), fisher);
  ActivationCodec codec(32, basis);
  const Matrix rows = source.Rows(1000);
  std::string bytes;
  codec.Encode({CodecId::kKlt, 32}, rows.ref(), bytes);
  Matrix out(1000, 32);
  ASSERT_TRUE(codec.Decode({CodecId::kKlt, 32}, Bytes(bytes), out.ref()).ok());
  double important = 0, all = 0;
  for (size_t r = 0; r < 1000; ++r) {
    for (size_t i = 0; i < 32; ++i) {
      const double error = std::pow(out.row(r)[i] - rows.ref().row(r)[i], 2);
      (i == 5 ? important : all) += error;
    }
  }
  EXPECT_LT(important, 0.2 * all / 31);
}

TEST(BasisBuilder, TheNormalizerIsThatOfTheBasis) {
  GaussianSource source(40, 2, 9);
  Matrix rows = source.Rows(300);
  for (size_t r = 0; r < 300; ++r) rows.row(r)[0] *= 50;
  const RowNormalizer normalizer = RowNormalizer::Fit(rows.ref());
  const std::shared_ptr<const BoundaryBasis> basis = BasisOf(rows);
  EXPECT_EQ(normalizer.massive(), basis->massive);
  EXPECT_EQ(normalizer.mean(), basis->mean);
  for (size_t r = 0; r < 300; ++r) {
    double sum = 0;
    for (size_t i = 1; i < 40; ++i) {
      sum += std::pow(static_cast<double>(rows.row(r)[i]) - normalizer.mean()[i], 2);
    }
    const float scale = normalizer.Scale({rows.row(r), 40});
    EXPECT_NEAR(std::log2(scale / std::sqrt(sum / 39)), 0, 1.0 / 16 + 1e-5);
    EXPECT_LE(scale, basis->largest_scale);
  }
}

}  // namespace
}  // namespace efedllm
