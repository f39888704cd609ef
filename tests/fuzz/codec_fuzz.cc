// libs: efedllm_svd
// The codecs of activations: bytes of a peer are refused or give finite numbers; any activations
// survive, within the bound on bytes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "common/check.h"
#include "svd/basis_builder.h"
#include "svd/codec.h"
#include "svd/codec_world.h"

namespace efedllm {
namespace {

constexpr size_t kDimensions = 40;
constexpr size_t kMaxRows = 24;

std::shared_ptr<const BoundaryBasis> MakeBasis() {
  GaussianSource source(kDimensions, 4, 1);
  Matrix rows = source.Rows(400);
  for (size_t r = 0; r < rows.rows(); ++r) rows.row(r)[5] *= 50;
  return BasisOf(std::move(rows));
}

bool AllFinite(const Matrix& matrix) {
  const auto values = matrix.ref().span();
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

void DecodeHostile(ActivationCodec& codec, CodecSetting setting, size_t rows,
                   absl::Span<const uint8_t> bytes) {
  Matrix out(rows, kDimensions);
  EncodedRows alone;
  if (!codec.Decode(setting, bytes, out.ref(), &alone).ok()) return;
  CHECK(AllFinite(out));
  CHECK(alone.sizes.size() == rows);
  // Each row by itself says the same.
  size_t at = 0;
  for (size_t r = 0; r < rows; at += alone.sizes[r++]) {
    Matrix row(1, kDimensions);
    CHECK(codec.Decode(setting, Bytes(alone.bytes.substr(at, alone.sizes[r])), row.ref()).ok());
    CHECK(std::memcmp(row.row(0), out.row(r), kDimensions * sizeof(float)) == 0);
  }
}

// The input as activations.
void RoundTrip(ActivationCodec& codec, CodecSetting setting, absl::Span<const uint8_t> bytes) {
  const size_t rows = std::min(kMaxRows, bytes.size() / sizeof(float) / kDimensions + 1);
  Matrix in(rows, kDimensions), out(rows, kDimensions);
  if (!bytes.empty()) {
    std::memcpy(in.row(0), bytes.data(),
                std::min(bytes.size(), rows * kDimensions * sizeof(float)));
  }
  std::string encoded;
  codec.Encode(setting, in.ref(), encoded);
  CHECK(encoded.size() <= MaxEncodedBytes(rows, kDimensions));
  const absl::Status status = codec.Decode(setting, Bytes(encoded), out.ref());
  if (AllFinite(in)) {
    CHECK(status.ok());
    CHECK(AllFinite(out));
  } else {
    CHECK(status.code() == absl::StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace efedllm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using efedllm::CodecId;
  static efedllm::ActivationCodec& codec =
      *new efedllm::ActivationCodec(efedllm::kDimensions, efedllm::MakeBasis());
  if (size < 3) return 0;
  // What to do, the codec, its step and the rows; then the bytes.
  const efedllm::CodecSetting wanted{static_cast<CodecId>(1 + data[0] % 5),
                                     static_cast<uint8_t>(data[1] % 8 * 16)};
  const efedllm::CodecSetting setting{wanted.id,
                                      wanted.needs_basis() ? wanted.step : static_cast<uint8_t>(0)};
  const absl::Span<const uint8_t> bytes(data + 3, size - 3);
  if (data[0] >= 128) {
    efedllm::RoundTrip(codec, setting, bytes);
  } else {
    efedllm::DecodeHostile(codec, setting, data[2] % efedllm::kMaxRows, bytes);
  }
  return 0;
}
