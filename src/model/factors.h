// Matrices of a model file that stand as two thin factors, in place of the matrix or as a
// correction beside a coarser one (docs/model-compression.md):
//
//   blk.N.PART.factor_a   [rank, inputs]    the part's "x · aᵀ"
//   blk.N.PART.factor_b   [outputs, rank]   then "· bᵀ"
//   blk.N.PART.weight     [outputs, inputs] where it is a correction
//
// A file with such tensors says so in efedllm.factors.version. Programs that don't know them miss a
// tensor, or find one too many, and refuse the file.
#ifndef EFEDLLM_MODEL_FACTORS_H_
#define EFEDLLM_MODEL_FACTORS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/model_file.h"

namespace efedllm {

inline constexpr absl::string_view kFactorsVersionKey = "efedllm.factors.version";
inline constexpr uint64_t kFactorsVersion = 1;
// A rank of 1 would make vectors of factors.
inline constexpr uint64_t kLeastRank = 2;

// part: a matrix's name without ".weight".
std::string FactorAName(absl::string_view part);
std::string FactorBName(absl::string_view part);

bool HasFactors(const ModelFile& file);

// Unimplemented: the factors are of another version than ours, or the file has some and doesn't
// say of which.
absl::Status CheckFactorsVersion(const ModelFile& file);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_FACTORS_H_
