#include "app/variant_planner.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "app/compression_plan.h"
#include "common/check.h"
#include "common/units.h"

namespace efedllm {
namespace {

bool Allowed(CompressionMethod method, const MatrixForm& form, DType dtype) {
  if (form.kind == FormKind::kKept) return true;
  switch (method) {
    case CompressionMethod::kUniformSvd:
    case CompressionMethod::kPlainSvd:
      return form.kind == FormKind::kPlainSvd;
    case CompressionMethod::kFactors:
      return form.kind == FormKind::kFactors && form.factor == FactorTypeLike(dtype);
    case CompressionMethod::kSvd:
      return form.kind == FormKind::kFactors || form.kind == FormKind::kCorrected;
    case CompressionMethod::kQuantize:
      return form.kind == FormKind::kQuantized;
    case CompressionMethod::kAny:
      return form.kind != FormKind::kPlainSvd;
  }
  return false;
}

// What PlanForBytes chooses from, and for each choice the form's index.
struct Table {
  std::vector<std::vector<PlanChoice>> choices;
  std::vector<std::vector<size_t>> forms;
};

Table TableFor(CompressionMethod method, const std::vector<MatrixStudy>& matrices) {
  Table table;
  for (const MatrixStudy& matrix : matrices) {
    std::vector<PlanChoice>& choices = table.choices.emplace_back();
    std::vector<size_t>& forms = table.forms.emplace_back();
    for (size_t k = 0; k < matrix.forms.size(); ++k) {
      const FormChoice& choice = matrix.forms[k];
      if (!Allowed(method, choice.form, matrix.place.spec.dtype)) continue;
      choices.push_back({choice.bytes, matrix.ExpectedKl(choice)});
      forms.push_back(k);
    }
  }
  return table;
}

}  // namespace

double MatrixStudy::ExpectedKl(const FormChoice& choice) const {
  const bool truncated =
      choice.form.kind == FormKind::kFactors || choice.form.kind == FormKind::kPlainSvd;
  return choice.loss * (truncated ? kl_of_truncation : kl_of_rounding);
}

const FormChoice& MatrixStudy::Find(const MatrixForm& form) const {
  const auto found = std::find_if(forms.begin(), forms.end(),
                                  [&](const FormChoice& choice) { return choice.form == form; });
  CHECK(found != forms.end());
  return *found;
}

absl::Status VariantPlanner::OutOfReach(CompressionMethod method, uint64_t least) const {
  return absl::ResourceExhaustedError(absl::StrCat(
      "--budget is out of reach: by the method ", MethodName(method), " the model takes at least ",
      FormatBytes(least), " (",
      std::lround(100.0 * static_cast<double>(least) / static_cast<double>(file_bytes_)),
      " % of what it takes now); embeddings, norms, experts and the output head stay as they are"));
}

absl::StatusOr<ModelVariant> VariantPlanner::ForBytes(CompressionMethod method,
                                                      uint64_t bytes) const {
  const uint64_t room = bytes < fixed_bytes_ ? 0 : bytes - fixed_bytes_;
  if (method == CompressionMethod::kUniformSvd) return UniformSvd(room);
  const Table table = TableFor(method, matrices_);
  const absl::StatusOr<CompressionChoices> picked = PlanForBytes(table.choices, room);
  if (!picked.ok()) {
    uint64_t least = fixed_bytes_;
    for (const std::vector<PlanChoice>& choices : table.choices) {
      least += std::min_element(
                   choices.begin(), choices.end(),
                   [](const PlanChoice& a, const PlanChoice& b) { return a.bytes < b.bytes; })
                   ->bytes;
    }
    return OutOfReach(method, least);
  }
  ModelVariant variant(matrices_.size());
  for (size_t i = 0; i < variant.size(); ++i) {
    variant[i] = matrices_[i].forms[table.forms[i][(*picked)[i]]].form;
  }
  return variant;
}

// Each matrix takes its share of the room and no more.
absl::StatusOr<ModelVariant> VariantPlanner::UniformSvd(uint64_t room) const {
  uint64_t now = 0;
  for (const MatrixStudy& matrix : matrices_) now += matrix.forms[0].bytes;
  const double share = static_cast<double>(room) / static_cast<double>(now);
  ModelVariant variant(matrices_.size());
  for (size_t i = 0; i < variant.size(); ++i) {
    const double most = share * static_cast<double>(matrices_[i].forms[0].bytes);
    for (const FormChoice& choice : matrices_[i].forms) {  // by rising rank
      const bool fits = static_cast<double>(choice.bytes) <= most;
      if (fits && choice.form.kind == FormKind::kPlainSvd) variant[i] = choice.form;
    }
    if (share < 1 && variant[i].kind == FormKind::kKept) {
      return absl::ResourceExhaustedError(
          absl::StrCat(matrices_[i].place.part, " has no rank that is so small"));
    }
  }
  return variant;
}

uint64_t VariantPlanner::BytesForKl(CompressionMethod method, double kl) const {
  const Table table = TableFor(method, matrices_);
  return fixed_bytes_ + PlannedBytes(table.choices, PlanForKl(table.choices, kl));
}

double VariantPlanner::ExpectedKl(const ModelVariant& variant) const {
  double kl = 0;
  for (size_t i = 0; i < variant.size(); ++i) {
    kl += matrices_[i].ExpectedKl(matrices_[i].Find(variant[i]));
  }
  return kl;
}

}  // namespace efedllm
