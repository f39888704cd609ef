// What the codecs make of normally distributed rows: no more than they say is lost, in fewer bytes
// than a grid would take.
#include <gtest/gtest.h>

#include <cmath>

#include "codec_world.h"
#include "svd/codec.h"

namespace efedllm {
namespace {

double SquaredErrorOf(ActivationCodec& codec, CodecSetting setting, ConstMatrixRef in) {
  std::string bytes;
  codec.Encode(setting, in, bytes);
  Matrix out(in.rows, in.cols);
  const absl::Status status = codec.Decode(setting, Bytes(bytes), out.ref());
  EXPECT_TRUE(status.ok()) << status;
  double sum = 0;
  for (size_t i = 0; i < in.span().size(); ++i) {
    sum += std::pow(static_cast<double>(in.span()[i]) - out.ref().span()[i], 2);
  }
  return sum;
}

// Some directions count far more than others, so that equal steps are not equal errors.
Eigen::MatrixXd UnevenFisher(size_t d, double spread, uint64_t seed) {
  GaussianSource directions(d, spread, seed);
  const Matrix rows = directions.Rows(4 * d);
  Eigen::MatrixXd fisher =
      Eigen::MatrixXd::Zero(static_cast<Eigen::Index>(d), static_cast<Eigen::Index>(d));
  for (size_t r = 0; r < rows.rows(); ++r) {
    const Eigen::VectorXf row = Eigen::Map<const Eigen::VectorXf>(rows.ref().row(r), fisher.rows());
    fisher += (row * row.transpose()).cast<double>();
  }
  return fisher;
}

TEST(CodecError, NoRowsErrorIsAboveItsBound) {
  for (const size_t d : {5, 33, 96}) {
    GaussianSource source(d, 6, d);
    const std::shared_ptr<const BoundaryBasis> basis =
        BasisOf(source.Rows(2000), UnevenFisher(d, 12, d));
    ActivationCodec codec(d, basis);
    Matrix rows = source.Rows(400);
    for (size_t r = 0; r < 100; ++r) rows.row(r)[r % d] *= 30;
    for (const CodecId id : {CodecId::kScalar, CodecId::kKlt}) {
      for (const uint8_t step : {0, 16, 40, 64, 100, 160}) {
        const CodecSetting setting{id, step};
        uint64_t plain = 0;
        for (size_t r = 0; r < rows.rows(); ++r) {
          const ConstMatrixRef row{rows.row(r), 1, d};
          std::string bytes;
          const EncodingReport report = codec.Encode(setting, row, bytes);
          const double error = SquaredErrorOf(codec, setting, row);
          ASSERT_GE(report.squared_error, error * (1 - 1e-9)) << CodecLabel(setting) << " " << r;
          plain += report.plain_rows;
        }
        // Whatever the bound, it is the error itself that decides.
        std::string bytes;
        EXPECT_EQ(
            codec.Encode(setting, rows.ref(), bytes, nullptr, ErrorMeasure::kExact).plain_rows,
            plain);
      }
    }
  }
}

// A normal variable, rounded to multiples of a step.
struct Rounded {
  double bits = 0;
  double error = 0;  // squared
};
Rounded RoundedNormal(double sigma, double step) {
  const auto below = [&](double x) { return 0.5 * std::erfc(-x / sigma / std::sqrt(2.0)); };
  const auto density = [&](double x) {
    return std::exp(-0.5 * x * x / (sigma * sigma)) / (sigma * std::sqrt(2 * M_PI));
  };
  Rounded result;
  const int most = static_cast<int>(8 * sigma / step) + 1;
  for (int k = -most; k <= most; ++k) {
    const double m = k * step, from = m - step / 2, to = m + step / 2;
    const double p = below(to) - below(from);
    if (!(p > 1e-15)) continue;
    result.bits -= p * std::log2(p);
    // The integral of (x - m)² times the density.
    const double mean = sigma * sigma * (density(from) - density(to));
    const double square = sigma * sigma * (p + from * density(from) - to * density(to));
    result.error += square - 2 * m * mean + m * m * p;
  }
  return result;
}

// Bits of a row whose coefficients are rounded to multiples of the step that gives this error.
double RoundedBits(const Eigen::VectorXd& sigma, double error) {
  double low = 1e-3, high = 4;
  Rounded sum;
  for (int i = 0; i < 24; ++i) {
    const double step = std::sqrt(low * high);
    sum = {};
    for (const double of : sigma) {
      const Rounded one = RoundedNormal(of, step);
      sum.bits += one.bits;
      sum.error += one.error;
    }
    (sum.error < error ? low : high) = step;
  }
  return sum.bits;
}

TEST(CodecRate, AGaussianSourceTakesLessThanRoundingItToAGridWould) {
  GaussianSource source(96, 5, 7);
  const Matrix sample = source.Rows(3000);
  ActivationCodec codec(96, BasisOf(source.Rows(3000)));
  for (const uint8_t step : {16, 32, 48, 64, 80}) {
    std::string bytes;
    const double error =
        codec.Encode({CodecId::kKlt, step}, sample.ref(), bytes, nullptr, ErrorMeasure::kExact)
            .squared_error /
        3000;
    const double bits = 8.0 / 3000 * static_cast<double>(bytes.size());
    const double grid = RoundedBits(source.sigma(), error);
    RecordProperty("bits", std::to_string(bits));
    EXPECT_LT(bits, (step < 24 ? 1 : 0.985) * grid + 5) << +step;
    EXPECT_GT(bits, 0.9 * grid) << +step;
    // One row alone pays for its stream's end: less than two bytes.
    std::string alone;
    for (size_t r = 0; r < 500; ++r) {
      codec.Encode({CodecId::kKlt, step}, {sample.ref().row(r), 1, 96}, alone);
    }
    EXPECT_LT(8.0 / 500 * static_cast<double>(alone.size()), bits + 14) << +step;
  }
}

}  // namespace
}  // namespace efedllm
