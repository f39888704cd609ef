#include "tensor/dtype.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"

namespace efedllm {
namespace {

struct Facts {
  DType dtype;
  absl::string_view name;
  size_t values;
  size_t bytes;
};

constexpr Facts kFacts[] = {
    {DType::kF32, "F32", 1, 4},           {DType::kF16, "F16", 1, 2},
    {DType::kBF16, "BF16", 1, 2},         {DType::kQ8_0, "Q8_0", 32, 34},
    {DType::kQ4_0, "Q4_0", 32, 18},       {DType::kQ4_1, "Q4_1", 32, 20},
    {DType::kQ5_0, "Q5_0", 32, 22},       {DType::kQ5_1, "Q5_1", 32, 24},
    {DType::kQ2_K, "Q2_K", 256, 84},      {DType::kQ3_K, "Q3_K", 256, 110},
    {DType::kQ4_K, "Q4_K", 256, 144},     {DType::kQ5_K, "Q5_K", 256, 176},
    {DType::kQ6_K, "Q6_K", 256, 210},     {DType::kIQ4_NL, "IQ4_NL", 32, 18},
    {DType::kIQ4_XS, "IQ4_XS", 256, 136}, {DType::kMXFP4, "MXFP4", 32, 17},
};

const Facts& FactsOf(DType dtype) {
  for (const Facts& facts : kFacts) {
    if (facts.dtype == dtype) return facts;
  }
  CheckFailed(__FILE__, __LINE__, "a DType outside of the enum");
}

}  // namespace

std::optional<DType> DTypeFromGguf(uint32_t gguf_type) {
  for (const Facts& facts : kFacts) {
    if (static_cast<uint32_t>(facts.dtype) == gguf_type) return facts.dtype;
  }
  return std::nullopt;
}

absl::string_view GgufTypeName(uint32_t gguf_type) {
  switch (gguf_type) {
    case 9:
      return "Q8_1";
    case 15:
      return "Q8_K";
    case 16:
      return "IQ2_XXS";
    case 17:
      return "IQ2_XS";
    case 18:
      return "IQ3_XXS";
    case 19:
      return "IQ1_S";
    case 21:
      return "IQ3_S";
    case 22:
      return "IQ2_S";
    case 24:
      return "I8";
    case 25:
      return "I16";
    case 26:
      return "I32";
    case 27:
      return "I64";
    case 28:
      return "F64";
    case 29:
      return "IQ1_M";
    case 34:
      return "TQ1_0";
    case 35:
      return "TQ2_0";
    default:
      break;
  }
  const std::optional<DType> dtype = DTypeFromGguf(gguf_type);
  return dtype ? DTypeName(*dtype) : "unknown";
}

std::string AllDTypeNames() {
  const auto name = [](std::string* out, const Facts& facts) { absl::StrAppend(out, facts.name); };
  return absl::StrJoin(kFacts, ", ", name);
}

absl::string_view DTypeName(DType dtype) { return FactsOf(dtype).name; }
size_t BlockValues(DType dtype) { return FactsOf(dtype).values; }
size_t BlockBytes(DType dtype) { return FactsOf(dtype).bytes; }

std::optional<uint64_t> RowBytes(DType dtype, uint64_t n) {
  const Facts& facts = FactsOf(dtype);
  if (n % facts.values != 0) return std::nullopt;
  const uint64_t blocks = n / facts.values;
  if (blocks > std::numeric_limits<uint64_t>::max() / facts.bytes) return std::nullopt;
  return blocks * facts.bytes;
}

}  // namespace efedllm
