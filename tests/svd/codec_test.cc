#include "svd/codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "common/random.h"

namespace efedllm {
namespace {

absl::Span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
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
  std::string bytes;
  EncodeActivations(CodecId::kF32, in.ref(), bytes);
  ASSERT_EQ(bytes.size(), MaxEncodedBytes(CodecId::kF32, 5, 37));

  Matrix out(5, 37);
  ASSERT_TRUE(DecodeActivations(CodecId::kF32, Bytes(bytes), out.ref()).ok());
  for (size_t i = 0; i < in.ref().span().size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(in.ref().span()[i]),
              std::bit_cast<uint32_t>(out.ref().span()[i]));
  }
}

TEST(Codec, F32IsLittleEndian) {
  Matrix in(1, 1);
  in.row(0)[0] = 1.0f;
  std::string bytes;
  EncodeActivations(CodecId::kF32, in.ref(), bytes);
  EXPECT_EQ(bytes, std::string("\x00\x00\x80\x3f", 4));
}

TEST(Codec, AppendsToWhatIsThere) {
  Matrix in(1, 2);
  std::string bytes = "head";
  EncodeActivations(CodecId::kF32, in.ref(), bytes);
  EXPECT_EQ(bytes.substr(0, 4), "head");
  EXPECT_EQ(bytes.size(), 12u);
}

TEST(Codec, RefusesAnotherSize) {
  Matrix out(2, 2);
  for (const size_t size : {0, 12, 15, 17, 32}) {
    const absl::Status status =
        DecodeActivations(CodecId::kF32, Bytes(std::string(size, '\0')), out.ref());
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << size;
  }
}

TEST(Codec, RefusesNanAndInfinityAnywhere) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    for (size_t at = 0; at < 6; ++at) {
      Matrix in(2, 3);
      in.ref().span()[at] = bad;
      std::string bytes;
      EncodeActivations(CodecId::kF32, in.ref(), bytes);
      Matrix out(2, 3);
      EXPECT_EQ(DecodeActivations(CodecId::kF32, Bytes(bytes), out.ref()).code(),
                absl::StatusCode::kDataLoss);
    }
  }
}

TEST(Codec, AnEmptyBlockTakesNoBytes) {
  Matrix none(0, 64);
  std::string bytes;
  EncodeActivations(CodecId::kF32, none.ref(), bytes);
  EXPECT_TRUE(bytes.empty());
  EXPECT_TRUE(DecodeActivations(CodecId::kF32, {}, none.ref()).ok());
}

TEST(Codec, NumbersAreThoseOfTheMessages) {
  EXPECT_EQ(CodecFromNumber(1), CodecId::kF32);
  EXPECT_EQ(CodecFromNumber(0), std::nullopt);
  EXPECT_EQ(CodecFromNumber(2), std::nullopt);
  EXPECT_EQ(CodecName(CodecId::kF32), "f32");
}

}  // namespace
}  // namespace efedllm
