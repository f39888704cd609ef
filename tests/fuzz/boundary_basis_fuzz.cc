// libs: efedllm_svd
// A boundary's basis from a peer or a file: what is accepted is the same bytes again, and codecs
// that use it stay within memory and finite.
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/types/span.h"
#include "common/check.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "tensor/matrix.h"

namespace efedllm {
namespace {

absl::Span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

void UseBasis(std::shared_ptr<const BoundaryBasis> basis) {
  constexpr size_t kRows = 3;
  const size_t d = basis->d_model;
  Matrix in(kRows, d), out(kRows, d);
  for (size_t i = 0; i < kRows * d; ++i) {
    in.ref().data[i] = static_cast<float>(i % 17) - 8;
  }
  ActivationCodec codec(d, std::move(basis));
  for (const CodecId id : {CodecId::kScalar, CodecId::kKlt}) {
    const CodecSetting setting{id, 40};
    std::string bytes;
    codec.Encode(setting, in.ref(), bytes);
    CHECK(bytes.size() <= MaxEncodedBytes(kRows, d));
    CHECK(codec.Decode(setting, Bytes(bytes), out.ref()).ok());
    for (const float value : out.ref().span()) CHECK(std::isfinite(value));
  }
}

}  // namespace
}  // namespace efedllm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::StatusOr<efedllm::BoundaryBasis> basis = efedllm::ParseBoundaryBasis({data, size});
  if (!basis.ok()) return 0;
  const std::string again = basis->Serialize();
  CHECK(again.size() == size && std::string(data, data + size) == again);
  CHECK(size <= efedllm::MaxBasisBytes(basis->d_model));
  if (basis->d_model <= 128) {
    efedllm::UseBasis(std::make_shared<const efedllm::BoundaryBasis>(*std::move(basis)));
  }
  return 0;
}
