#include "wire/tensor_wire.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "wire/field_checks.h"

namespace efedllm {

v1::TensorSpec ToWire(const TensorSpec& spec) {
  v1::TensorSpec message;
  message.set_name(spec.name);
  message.set_dtype(static_cast<uint32_t>(spec.dtype));
  message.set_rows(spec.rows);
  message.set_cols(spec.cols);
  std::string* digests = message.mutable_chunk_sha256();
  digests->reserve(spec.chunks.size() * sizeof(Sha256Digest));
  for (const Sha256Digest& chunk : spec.chunks) {
    digests->append(reinterpret_cast<const char*>(chunk.data()), chunk.size());
  }
  return message;
}

absl::StatusOr<TensorSpec> FromWire(const v1::TensorSpec& message) {
  RETURN_IF_ERROR(CheckText("tensor.name", message.name(), 128));
  RETURN_IF_ERROR(CheckRange("tensor.rows", message.rows(), 1, uint64_t{1} << 24));
  RETURN_IF_ERROR(CheckRange("tensor.cols", message.cols(), 1, uint64_t{1} << 24));
  const std::optional<DType> dtype = DTypeFromGguf(message.dtype());
  if (!dtype)
    return WrongField("tensor.dtype", absl::StrCat("is ", message.dtype(), ", unknown here"));
  if (!RowBytes(*dtype, message.cols()))
    return WrongField("tensor.cols", "is no whole number of blocks");
  TensorSpec spec;
  spec.name = message.name();
  spec.dtype = *dtype;
  spec.rows = message.rows();
  spec.cols = message.cols();
  const std::string& digests = message.chunk_sha256();
  if (digests.size() != spec.chunk_count() * sizeof(Sha256Digest)) {
    return WrongField("tensor.chunk_sha256", absl::StrCat("has ", digests.size(), " bytes for ",
                                                          spec.chunk_count(), " chunks"));
  }
  spec.chunks.resize(spec.chunk_count());
  for (size_t i = 0; i < spec.chunks.size(); ++i) {
    digests.copy(reinterpret_cast<char*>(spec.chunks[i].data()), sizeof(Sha256Digest),
                 i * sizeof(Sha256Digest));
  }
  return spec;
}

}  // namespace efedllm
