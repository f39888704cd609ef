// The number formats that weights have in a GGUF file, as facts: block length, block size, name,
// GGUF's number.
#ifndef EFEDLLM_TENSOR_DTYPE_H_
#define EFEDLLM_TENSOR_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace efedllm {

// The values are GGUF's tensor type numbers (ggml_type), so that they can stand in files and
// messages.
enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kMXFP4 = 39,
};

// nullopt: a type that this build can't compute with.
std::optional<DType> DTypeFromGguf(uint32_t gguf_type);

// GGUF's name of any type number, known to us or not ("IQ2_XS"), for error messages.
absl::string_view GgufTypeName(uint32_t gguf_type);
absl::string_view DTypeName(DType dtype);
// The names of all DTypes, separated by ", ".
std::string AllDTypeNames();

// Values in a block, and the bytes that a block takes. 1 value for the float types.
size_t BlockValues(DType dtype);
size_t BlockBytes(DType dtype);

// Bytes of a row of n values. nullopt: n is not a multiple of the block, or the size overflows.
std::optional<uint64_t> RowBytes(DType dtype, uint64_t n);

}  // namespace efedllm

#endif  // EFEDLLM_TENSOR_DTYPE_H_
