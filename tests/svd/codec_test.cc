#include "svd/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "codec_world.h"
#include "svd/plain_rows.h"

namespace efedllm {
namespace {

constexpr CodecSetting kF32{CodecId::kF32, 0};
constexpr CodecSetting kF16{CodecId::kF16, 0};
constexpr CodecSetting kInt8{CodecId::kInt8, 0};

std::string Encoded(ActivationCodec& codec, CodecSetting setting, ConstMatrixRef in) {
  std::string bytes;
  codec.Encode(setting, in, bytes);
  return bytes;
}

Matrix Decoded(ActivationCodec& codec, CodecSetting setting, ConstMatrixRef in) {
  Matrix out(in.rows, in.cols);
  const std::string bytes = Encoded(codec, setting, in);
  const absl::Status status = codec.Decode(setting, Bytes(bytes), out.ref());
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

double RmsError(ConstMatrixRef a, ConstMatrixRef b, size_t r) {
  double sum = 0;
  for (size_t i = 0; i < a.cols; ++i) {
    const double difference = static_cast<double>(a.row(r)[i]) - b.row(r)[i];
    sum += difference * difference;
  }
  return std::sqrt(sum / static_cast<double>(a.cols));
}

double Rms(ConstMatrixRef a, size_t r) {
  const Matrix zeros(1, a.cols);
  return RmsError({a.row(r), 1, a.cols}, zeros.ref(), 0);
}

bool SameBits(ConstMatrixRef a, ConstMatrixRef b) {
  return std::equal(
      a.span().begin(), a.span().end(), b.span().begin(), b.span().end(),
      [](float x, float y) { return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y); });
}

// What all tests of coded rows share: a boundary of 96 dimensions whose spectrum falls by 5
// octaves.
struct World {
  GaussianSource source{96, 5, 7};
  Matrix sample = source.Rows(3000);
  std::shared_ptr<const BoundaryBasis> basis = BasisOf(source.Rows(3000));
};
World& SharedWorld() {
  static World& world = *new World;
  return world;
}

std::vector<CodecSetting> AllSettings() {
  std::vector<CodecSetting> settings = {kF32, kF16, kInt8};
  for (const CodecId id : {CodecId::kScalar, CodecId::kKlt}) {
    for (const uint8_t step : {0, 8, 24, 40, 56, 80, 120, 160}) settings.push_back({id, step});
  }
  return settings;
}

TEST(Codec, F32KeepsEveryBit) {
  Random random(1);
  Matrix in(5, 37);
  for (float& value : in.ref().span()) {
    do {
      value = std::bit_cast<float>(static_cast<uint32_t>(random.Next()));
    } while (!(value - value == 0));
  }
  in.row(0)[0] = -0.0f;
  in.row(0)[1] = std::numeric_limits<float>::denorm_min();
  in.row(0)[2] = std::numeric_limits<float>::max();
  ActivationCodec codec(37);
  EXPECT_EQ(Encoded(codec, kF32, in.ref()).size(), 5u * 37 * 4);
  EXPECT_TRUE(SameBits(in.ref(), Decoded(codec, kF32, in.ref()).ref()));
}

TEST(Codec, F32IsLittleEndian) {
  Matrix in(1, 1);
  in.row(0)[0] = 1.0f;
  ActivationCodec codec(1);
  EXPECT_EQ(Encoded(codec, kF32, in.ref()), std::string("\x00\x00\x80\x3f", 4));
}

TEST(Codec, AppendsToWhatIsThere) {
  for (const CodecSetting setting : AllSettings()) {
    World& world = SharedWorld();
    ActivationCodec codec(96, world.basis);
    std::string bytes = "head";
    codec.Encode(setting, world.sample.ref(), bytes);
    EXPECT_EQ(bytes.substr(0, 4), "head");
    EXPECT_EQ(bytes.substr(4), Encoded(codec, setting, world.sample.ref()));
  }
}

TEST(Codec, RefusesAnotherSize) {
  World& world = SharedWorld();
  ActivationCodec codec(96, world.basis);
  const ConstMatrixRef in{world.sample.row(0), 3, 96};
  Matrix out(3, 96);
  int accepted = 0;
  for (const CodecSetting setting : AllSettings()) {
    const std::string bytes = Encoded(codec, setting, in);
    for (const std::string& bad :
         {bytes.substr(0, bytes.size() - 1), bytes + '\0', std::string()}) {
      const absl::Status status = codec.Decode(setting, Bytes(bad), out.ref());
      if (setting.needs_basis() && !bad.empty()) {
        accepted += status.ok() ? 1 : 0;
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << CodecLabel(setting);
      }
    }
  }
  // Entropy-coded bytes are not redundant: now and then others are an encoding as well.
  EXPECT_LE(accepted, 2);
  Matrix narrow(3, 95);
  EXPECT_EQ(codec.Decode(kF16, {}, narrow.ref()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Codec, RefusesASettingWithoutItsBasis) {
  ActivationCodec codec(96);
  Matrix out(1, 96);
  const std::string bytes(40, 'x');
  EXPECT_EQ(codec.Decode({CodecId::kKlt, 40}, Bytes(bytes), out.ref()).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Codec, NanAndInfinityNeverArrive) {
  World& world = SharedWorld();
  ActivationCodec codec(96, world.basis);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    for (const size_t at : {0, 1, 95, 96, 191}) {
      Matrix in(2, 96);
      std::copy_n(world.sample.row(0), 2 * 96, in.row(0));
      in.ref().span()[at] = bad;
      for (const CodecSetting setting : AllSettings()) {
        Matrix out(2, 96);
        const std::string bytes = Encoded(codec, setting, in.ref());
        EXPECT_EQ(codec.Decode(setting, Bytes(bytes), out.ref()).code(),
                  absl::StatusCode::kDataLoss)
            << CodecLabel(setting) << " " << at;
      }
    }
  }
}

TEST(Codec, AnEmptyBlockTakesNoBytes) {
  ActivationCodec codec(96, SharedWorld().basis);
  Matrix none(0, 96);
  for (const CodecSetting setting : AllSettings()) {
    EXPECT_TRUE(Encoded(codec, setting, none.ref()).empty());
    EXPECT_TRUE(codec.Decode(setting, {}, none.ref()).ok());
    EXPECT_FALSE(codec.Decode(setting, Bytes("x"), none.ref()).ok());
  }
}

TEST(Codec, NumbersAreThoseOfTheMessages) {
  EXPECT_EQ(CodecFromNumber(1), kF32);
  EXPECT_EQ(CodecFromNumber(5 + 256 * 160), (CodecSetting{CodecId::kKlt, 160}));
  for (const uint32_t bad : {0u, 6u, 255u, 1u + 256u, 3u + 512u, 5u + 256u * 161u, 0xffffff05u}) {
    EXPECT_EQ(CodecFromNumber(bad), std::nullopt) << bad;
  }
  for (const CodecSetting setting : AllSettings()) {
    EXPECT_EQ(CodecFromNumber(setting.number()), setting);
    EXPECT_EQ(CodecFromName(CodecName(setting.id)), setting.id);
  }
}

TEST(Codec, StepsHalveEverySixteenthAndAreFoundAgain) {
  EXPECT_EQ(StepSize(0), 1.0f);
  EXPECT_EQ(StepSize(160), 0x1p-10f);
  for (uint32_t i = 0; i <= kMaxStepIndex; ++i) {
    EXPECT_EQ(StepIndexBelow(StepSize(i)), i);
    EXPECT_NEAR(StepSize(i), std::exp2(-static_cast<double>(i) / 16), 1e-7);
  }
  EXPECT_EQ(StepIndexBelow(100), 0u);
  EXPECT_EQ(StepIndexBelow(0), kMaxStepIndex);
}

double SquaredError(ConstMatrixRef a, ConstMatrixRef b) {
  double sum = 0;
  for (size_t r = 0; r < a.rows; ++r) {
    sum += static_cast<double>(a.cols) * std::pow(RmsError(a, b, r), 2);
  }
  return sum;
}

TEST(Codec, TheErrorThatIsReportedIsTheOneThatWasMade) {
  World& world = SharedWorld();
  ActivationCodec codec(96, world.basis);
  const ConstMatrixRef in{world.sample.row(0), 50, 96};
  for (const CodecSetting setting : AllSettings()) {
    std::string bytes, same;
    const EncodingReport exact = codec.Encode(setting, in, bytes, nullptr, ErrorMeasure::kExact);
    const double sum = SquaredError(in, Decoded(codec, setting, in).ref());
    EXPECT_NEAR(exact.squared_error, sum, 1e-9 * sum + 1e-12) << CodecLabel(setting);
    const EncodingReport bound = codec.Encode(setting, in, same);
    EXPECT_EQ(same, bytes);
    EXPECT_EQ(bound.plain_rows, exact.plain_rows);
    EXPECT_GE(bound.squared_error, sum * (1 - 1e-9)) << CodecLabel(setting);
    if (setting.step >= 24 && setting.step <= 80) {
      EXPECT_LE(bound.squared_error, 1.3 * sum) << "and little more, " << CodecLabel(setting);
    }
  }
}

TEST(Codec, RowsKeepTheErrorOfTheirSetting) {
  World& world = SharedWorld();
  ActivationCodec codec(96, world.basis);
  for (const CodecSetting setting : AllSettings()) {
    const Matrix out = Decoded(codec, setting, world.sample.ref());
    double sum = 0;
    for (size_t r = 0; r < world.sample.rows(); ++r) {
      const double error = RmsError(world.sample.ref(), out.ref(), r);
      const double rms = Rms(world.sample.ref(), r);
      const double bound = setting == kF32    ? 0
                           : setting == kF16  ? rms * 0x1p-11
                           : setting == kInt8 ? rms / 50
                                              : 0.55 * StepSize(setting.step) * rms;
      ASSERT_LE(error, bound) << CodecLabel(setting) << " row " << r;
      sum += error / rms;
    }
    // On the whole less than a grid's, step / sqrt(12).
    if (setting.needs_basis() && setting.step >= 56 && setting.step <= 120) {
      EXPECT_NEAR(sum / static_cast<double>(world.sample.rows()), 0.25 * StepSize(setting.step),
                  0.02 * StepSize(setting.step))
          << CodecLabel(setting);
    }
  }
}

TEST(Codec, WhatBecomesOfARowDoesNotDependOnOthers) {
  World& world = SharedWorld();
  ActivationCodec codec(96, world.basis);
  Matrix in(1500, 96);
  std::copy_n(world.sample.row(0), 1500 * 96, in.row(0));
  // Some rows that are sent plain.
  for (const size_t r : {0, 3, 17, 700}) in.row(r)[5] = 4000;
  in.row(9)[0] = 1e30f;
  for (const CodecSetting setting : AllSettings()) {
    const Matrix together = Decoded(codec, setting, in.ref());
    for (const size_t part : {1, 2, 7, 48, 700}) {
      Matrix apart(1500, 96);
      for (size_t r = 0; r < (part < 48 ? 60 : 1500); r += part) {
        const size_t rows = std::min(part, 1500 - r);
        const Matrix out = Decoded(codec, setting, {in.row(r), rows, 96});
        ASSERT_TRUE(SameBits(out.ref(), {together.ref().row(r), rows, 96}))
            << CodecLabel(setting) << " row " << r << " in " << part;
      }
    }
  }
}

// What receipts are made of: both ends know each row as it would have been sent alone.
TEST(Codec, BothEndsKnowEachRowAsItWouldBeEncodedByItself) {
  World& world = SharedWorld();
  ActivationCodec codec(96, world.basis);
  Matrix in(700, 96);
  std::copy_n(world.sample.row(0), 700 * 96, in.row(0));
  for (const size_t r : {0, 3, 17, 650}) in.row(r)[5] = 4000;
  in.row(9)[0] = 1e30f;
  for (const CodecSetting setting : AllSettings()) {
    EncodedRows alone;
    for (size_t r = 0; r < 700; ++r) alone.Add(Encoded(codec, setting, {in.row(r), 1, 96}));
    for (const size_t rows : {1, 2, 9, 700}) {
      EncodedRows sent, received;
      std::string bytes;
      codec.Encode(setting, {in.row(0), rows, 96}, bytes, &sent);
      Matrix out(rows, 96);
      ASSERT_TRUE(codec.Decode(setting, Bytes(bytes), out.ref(), &received).ok());
      ASSERT_EQ(sent.sizes.size(), rows);
      EXPECT_EQ(sent.bytes, alone.bytes.substr(0, sent.bytes.size())) << CodecLabel(setting);
      EXPECT_TRUE(std::equal(sent.sizes.begin(), sent.sizes.end(), alone.sizes.begin()));
      EXPECT_EQ(received.bytes, sent.bytes) << CodecLabel(setting) << " " << rows;
      EXPECT_EQ(received.sizes, sent.sizes);
    }
  }
}

// Rows that are unlike the calibrated ones.
std::vector<std::vector<float>> AdversarialRows(const std::vector<float>& ordinary) {
  std::vector<std::vector<float>> rows;
  for (const float outlier : {1e3f, -1e6f, 1e15f, -3e38f}) {
    for (const size_t at : {0, 40, 95}) {
      rows.push_back(ordinary);
      rows.back()[at] *= outlier;
    }
    rows.push_back(ordinary);
    for (float& value : rows.back()) value = std::clamp(value * outlier, -3e38f, 3e38f);
  }
  for (const float constant : {0.0f, 1.0f, -1e-8f, 1e-30f, 1e-45f, 65505.0f, 3e38f}) {
    rows.emplace_back(ordinary.size(), constant);
  }
  rows.push_back(ordinary);
  for (float& value : rows.back()) value *= 1e-6f;
  rows.emplace_back(ordinary.size(), 0.0f);
  rows.back()[3] = 1;
  rows.emplace_back();
  for (size_t i = 0; i < ordinary.size(); ++i) rows.back().push_back(i % 2 == 0 ? 3e38f : -3e38f);
  return rows;
}

TEST(Codec, AdversarialRowsKeepTheBudgetOfOrdinaryOnes) {
  World& world = SharedWorld();
  ActivationCodec codec(96, world.basis);
  const std::vector<float> ordinary(world.sample.row(0), world.sample.row(1));
  const std::vector<std::vector<float>> rows = AdversarialRows(ordinary);
  Matrix in(rows.size(), 96);
  for (size_t r = 0; r < rows.size(); ++r) std::copy(rows[r].begin(), rows[r].end(), in.row(r));
  for (const CodecSetting setting : AllSettings()) {
    const std::string bytes = Encoded(codec, setting, in.ref());
    EXPECT_LE(bytes.size(), MaxEncodedBytes(rows.size(), 96));
    Matrix out(rows.size(), 96);
    ASSERT_TRUE(codec.Decode(setting, Bytes(bytes), out.ref()).ok());
    for (size_t r = 0; r < rows.size(); ++r) {
      const double error = RmsError(in.ref(), out.ref(), r);
      if (setting.needs_basis()) {
        EXPECT_LE(error, 0.55 * StepSize(setting.step) * world.basis->largest_scale)
            << CodecLabel(setting) << " row " << r;
      } else {
        EXPECT_LE(error, setting == kF32 ? 0 : Rms(in.ref(), r) / 10 + 1e-7) << r;
      }
    }
  }
}

TEST(Codec, NoEncodingIsLongerThanItsBound) {
  Random random(3);
  for (const size_t d : {1, 2, 15, 16, 17, 33, 64}) {
    Matrix sample(40, d);
    for (float& value : sample.ref().span()) value = static_cast<float>(NormalNumber(random));
    const std::shared_ptr<const BoundaryBasis> basis = BasisOf(sample);
    ActivationCodec codec(d, basis);
    for (const size_t rows : {1, 2, 3, 40}) {
      for (const float spread : {1.0f, 1e-3f, 30.0f, 1e10f}) {
        Matrix in(rows, d);
        for (float& value : in.ref().span()) {
          value = spread * static_cast<float>(NormalNumber(random) / (random.Uniform() + 1e-3));
        }
        for (const CodecSetting setting : AllSettings()) {
          const std::string bytes = Encoded(codec, setting, in.ref());
          EXPECT_LE(bytes.size(), MaxEncodedBytes(rows, d));
          Matrix out(rows, d);
          ASSERT_TRUE(codec.Decode(setting, Bytes(bytes), out.ref()).ok()) << CodecLabel(setting);
        }
      }
    }
  }
}

TEST(Codec, MassiveDimensionsTravelBesideTheCoefficients) {
  GaussianSource source(64, 3, 5);
  Matrix rows = source.Rows(2000);
  for (size_t r = 0; r < rows.rows(); ++r) {
    rows.row(r)[11] = 90 * rows.row(r)[12] + 500;
    rows.row(r)[60] *= 40;
  }
  const std::shared_ptr<const BoundaryBasis> basis = BasisOf(rows);
  ASSERT_EQ(basis->massive, (std::vector<uint32_t>{11, 60}));
  EXPECT_GT(basis->spectrum_with_massive[0], 0.5f);
  EXPECT_LT(basis->spectrum[0], 0.2f);
  ActivationCodec codec(64, basis);
  for (const CodecId id : {CodecId::kScalar, CodecId::kKlt}) {
    std::string bytes;
    const EncodingReport report = codec.Encode({id, 48}, rows.ref(), bytes);
    EXPECT_EQ(report.plain_rows, 0u);
    const Matrix out = Decoded(codec, {id, 48}, rows.ref());
    for (size_t r = 0; r < rows.rows(); ++r) {
      ASSERT_LE(RmsError(rows.ref(), out.ref(), r), 0.5 * StepSize(48) * basis->largest_scale);
      ASSERT_NEAR(out.ref().row(r)[11], rows.row(r)[11], std::fabs(rows.row(r)[11]) * 0x1p-11f);
    }
  }
}

// A basis that no calibration makes, but a peer may send.
TEST(Codec, LargeMultipliersSendRowsPlainRatherThanOverflow) {
  World& world = SharedWorld();
  BoundaryBasis basis = *world.basis;
  ASSERT_EQ(basis.backward.entry_bytes, 2u);
  basis.multiplier.assign(basis.coefficients(), kMaxMultiplier);
  ActivationCodec codec(96, std::make_shared<const BoundaryBasis>(basis));
  for (const uint8_t step : {16, 100, 160}) {
    std::string bytes;
    const CodecSetting setting{CodecId::kKlt, step};
    const EncodingReport report =
        codec.Encode(setting, {world.sample.row(0), 40, 96}, bytes, nullptr, ErrorMeasure::kExact);
    Matrix out(40, 96);
    ASSERT_TRUE(codec.Decode(setting, Bytes(bytes), out.ref()).ok());
    EXPECT_GT(report.plain_rows, 0u);
  }
}

TEST(Codec, DamagedBytesAreRefusedOrGiveFiniteNumbers) {
  World& world = SharedWorld();
  ActivationCodec codec(96, world.basis);
  Random random(11);
  Matrix in(8, 96);
  std::copy_n(world.sample.row(0), 8 * 96, in.row(0));
  in.row(4)[3] = 1e4f;
  int refused = 0;
  for (const CodecSetting setting : AllSettings()) {
    const std::string bytes = Encoded(codec, setting, in.ref());
    for (int i = 0; i < 300; ++i) {
      std::string bad = bytes;
      for (uint64_t edits = 1 + random.Below(3); edits > 0; --edits) {
        bad[random.Below(bad.size())] = static_cast<char>(random.Next());
      }
      if (random.Below(4) == 0) bad.resize(random.Below(bad.size()));
      Matrix out(8, 96);
      if (!codec.Decode(setting, Bytes(bad), out.ref()).ok()) {
        ++refused;
        continue;
      }
      for (const float value : out.ref().span()) ASSERT_TRUE(std::isfinite(value));
    }
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace efedllm
