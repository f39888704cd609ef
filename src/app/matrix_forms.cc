#include "app/matrix_forms.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "model/factors.h"
#include "model/gguf_writer.h"
#include "svd/decomposition.h"
#include "svd/factorization.h"
#include "tensor/blocks.h"
#include "tensor/quantize.h"

namespace efedllm {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr size_t kRowsPerChunk = 16;
// Ranks are multiples of this, and of the block of the factors' type.
constexpr uint64_t kRankStep = 8;
constexpr DType kQuantizedTypes[] = {DType::kQ8_0, DType::kQ6_K, DType::kQ5_0, DType::kQ4_K,
                                     DType::kQ4_0};
constexpr DType kFactorTypes[] = {DType::kQ8_0, DType::kQ5_0, DType::kQ4_0};
constexpr DType kCorrectionType = DType::kQ8_0;
// A correction takes a part of the rank only: it is there to be small.
constexpr Index kCorrectionPart = 4;

bool IsFloat(DType dtype) { return BlockValues(dtype) == 1; }

uint64_t PaddedBytes(DType dtype, uint64_t rows, uint64_t cols) {
  const uint64_t bytes = *RowBytes(dtype, cols) * rows;
  return (bytes + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment;
}

uint64_t RankStep(DType factor) { return std::max<uint64_t>(kRankStep, BlockValues(factor)); }

// Quantized rows, as a file has them. importance: [cols], or empty.
std::vector<uint8_t> Quantize(const MatrixXd& x, DType dtype, const std::vector<float>& importance,
                              ThreadTeam& team) {
  const RowMajor values = x.cast<float>();
  const size_t rows = static_cast<size_t>(x.rows()), cols = static_cast<size_t>(x.cols());
  const uint64_t row_bytes = *RowBytes(dtype, cols);
  std::vector<uint8_t> out(rows * row_bytes);
  team.ParallelFor((rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](size_t chunk) {
    for (size_t r = chunk * kRowsPerChunk; r < std::min(rows, (chunk + 1) * kRowsPerChunk); ++r) {
      QuantizeRow(dtype, values.data() + r * cols, cols,
                  importance.empty() ? nullptr : importance.data(), out.data() + r * row_bytes);
    }
  });
  return out;
}

MatrixXd Dequantize(absl::Span<const uint8_t> bytes, DType dtype, Index rows, Index cols) {
  const uint64_t row_bytes = *RowBytes(dtype, static_cast<uint64_t>(cols));
  RowMajor values(rows, cols);
  for (Index r = 0; r < rows; ++r) {
    DequantizeRow(dtype, bytes.data() + static_cast<uint64_t>(r) * row_bytes,
                  static_cast<size_t>(cols), values.data() + r * cols);
  }
  return values.cast<double>();
}

MatrixXd Rounded(const MatrixXd& x, DType dtype, const std::vector<float>& importance,
                 ThreadTeam& team) {
  return Dequantize(Quantize(x, dtype, importance, team), dtype, x.rows(), x.cols());
}

// How much each input's error weighs: its mean square.
std::vector<float> ImportanceOf(const MatrixXd& gram) {
  std::vector<float> importance(static_cast<size_t>(gram.rows()));
  const double least = 1e-6 * gram.diagonal().mean();
  for (Index i = 0; i < gram.rows(); ++i) {
    importance[static_cast<size_t>(i)] = static_cast<float>(std::max(gram(i, i), least));
  }
  return importance;
}

// What lies between factors, likewise. Columns of b have the norm that rows of a are scaled by.
std::vector<float> ImportanceBetween(const Factorization& f, Index rank) {
  std::vector<float> importance(static_cast<size_t>(rank));
  for (Index i = 0; i < rank; ++i) {
    const double gain = std::max(f.b.col(i).squaredNorm(), 1e-300);
    importance[static_cast<size_t>(i)] = static_cast<float>(f.energy[i] / gain);
  }
  return importance;
}

// f's ranks in this type, on top of what stands in `base` (0: nothing).
absl::Status AddRanks(const StudiedMatrix& matrix, const Factorization& f, MatrixForm form,
                      const std::vector<float>& importance, double energy, ThreadTeam& team,
                      std::vector<FormChoice>& choices) {
  const uint64_t step = RankStep(form.factor);
  const Index rank = f.rank() / static_cast<Index>(step) * static_cast<Index>(step);
  if (rank == 0) return absl::OkStatus();
  // Blocks of b's rows are as long as the step or less, so that each rank rounds alike.
  MatrixXd b = f.b, a = f.a;
  b.leftCols(rank) = Rounded(f.b.leftCols(rank), form.factor, ImportanceBetween(f, rank), team);
  a.topRows(rank) = Rounded(f.a.topRows(rank), form.factor, importance, team);
  const VectorXd rounding = RoundingLoss(f, b, a, matrix.gram, team);
  const auto rows = static_cast<uint64_t>(matrix.w.rows());
  const auto cols = static_cast<uint64_t>(matrix.w.cols());
  const uint64_t now = FormBytes({}, matrix.dtype, rows, cols);
  for (uint64_t r = step; r <= static_cast<uint64_t>(rank); r += step) {
    form.rank = static_cast<uint32_t>(r);
    const uint64_t bytes = FormBytes(form, matrix.dtype, rows, cols);
    if (bytes >= now) break;
    const auto i = static_cast<Index>(r);
    choices.push_back({form, bytes, (f.loss[i] + rounding[i]) / energy});
  }
  return absl::OkStatus();
}

absl::Status About(const StudiedMatrix& matrix, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(matrix.part, ": ", status.message()));
}

// Quantized forms, and their corrections.
absl::Status AddQuantized(const StudiedMatrix& matrix, const std::vector<float>& importance,
                          double energy, ThreadTeam& team, std::vector<FormChoice>& choices) {
  const auto rows = static_cast<uint64_t>(matrix.w.rows());
  const auto cols = static_cast<uint64_t>(matrix.w.cols());
  const uint64_t now = FormBytes({}, matrix.dtype, rows, cols);
  const Index most = std::min(matrix.w.rows(), matrix.w.cols()) / kCorrectionPart;
  for (const DType base : kQuantizedTypes) {
    if (!RowBytes(base, cols)) continue;
    MatrixForm form{.kind = FormKind::kQuantized, .base = base};
    const uint64_t bytes = FormBytes(form, matrix.dtype, rows, cols);
    if (bytes >= now) continue;
    const MatrixXd lost = matrix.w - Rounded(matrix.w, base, importance, team);
    choices.push_back({form, bytes, OutputLoss(lost, matrix.gram, team) / energy});
    if (!RowBytes(kCorrectionType, cols) || most < static_cast<Index>(RankStep(kCorrectionType))) {
      continue;
    }
    form.kind = FormKind::kCorrected;
    form.factor = kCorrectionType;
    ASSIGN_OR_RETURN(const Factorization f, Factorize(lost, matrix.gram, most, team));
    RETURN_IF_ERROR(AddRanks(matrix, f, form, importance, energy, team, choices));
  }
  return absl::OkStatus();
}

absl::StatusOr<Factorization> FactorsOf(const StudiedMatrix& matrix, FormKind kind,
                                        ThreadTeam& team) {
  const Index most = std::min(matrix.w.rows(), matrix.w.cols());
  if (kind == FormKind::kPlainSvd) return FactorizePlainly(matrix.w, matrix.gram, most, team);
  return Factorize(matrix.w, matrix.gram, most, team);
}

absl::StatusOr<std::vector<FormChoice>> Study(const StudiedMatrix& matrix, ThreadTeam& team) {
  const auto cols = static_cast<uint64_t>(matrix.w.cols());
  const std::vector<float> importance = ImportanceOf(matrix.gram);
  // A matrix whose inputs are zeros loses nothing, whatever happens to it.
  const double energy = std::max(OutputLoss(matrix.w, matrix.gram, team), 1e-300);
  std::vector<FormChoice> choices = {
      {{}, FormBytes({}, matrix.dtype, static_cast<uint64_t>(matrix.w.rows()), cols), 0}};
  RETURN_IF_ERROR(AddQuantized(matrix, importance, energy, team, choices));
  const DType like = FactorTypeLike(matrix.dtype);
  for (const FormKind kind : {FormKind::kFactors, FormKind::kPlainSvd}) {
    ASSIGN_OR_RETURN(const Factorization f, FactorsOf(matrix, kind, team));
    MatrixForm form{.kind = kind, .factor = like};
    if (RowBytes(like, cols)) {
      RETURN_IF_ERROR(AddRanks(matrix, f, form, importance, energy, team, choices));
    }
    if (kind == FormKind::kPlainSvd) continue;
    for (const DType factor : kFactorTypes) {
      if (factor == like || !RowBytes(factor, cols)) continue;
      form.factor = factor;
      RETURN_IF_ERROR(AddRanks(matrix, f, form, importance, energy, team, choices));
    }
  }
  return choices;
}

FormTensor TensorOf(std::string name, const MatrixXd& x, DType dtype,
                    const std::vector<float>& importance, ThreadTeam& team) {
  FormTensor tensor;
  tensor.spec.name = std::move(name);
  tensor.spec.dtype = dtype;
  tensor.spec.rows = static_cast<uint64_t>(x.rows());
  tensor.spec.cols = static_cast<uint64_t>(x.cols());
  tensor.bytes = Quantize(x, dtype, importance, team);
  return tensor;
}

absl::StatusOr<std::vector<FormTensor>> Make(const StudiedMatrix& matrix, const MatrixForm& form,
                                             ThreadTeam& team) {
  CHECK(form.kind != FormKind::kKept);
  const std::vector<float> importance = ImportanceOf(matrix.gram);
  std::vector<FormTensor> tensors;
  if (form.kind == FormKind::kQuantized || form.kind == FormKind::kCorrected) {
    tensors.push_back(TensorOf(matrix.part + ".weight", matrix.w, form.base, importance, team));
  }
  if (!form.has_factors()) return tensors;
  const auto rank = static_cast<Index>(form.rank);
  absl::StatusOr<Factorization> f;
  if (form.kind == FormKind::kCorrected) {
    const MatrixXd base = Dequantize(tensors[0].bytes, form.base, matrix.w.rows(), matrix.w.cols());
    const Index most = std::min(matrix.w.rows(), matrix.w.cols()) / kCorrectionPart;
    f = Factorize(matrix.w - base, matrix.gram, most, team);
  } else {
    f = FactorsOf(matrix, form.kind, team);
  }
  if (!f.ok()) return f.status();
  tensors.push_back(
      TensorOf(FactorAName(matrix.part), f->a.topRows(rank), form.factor, importance, team));
  tensors.push_back(TensorOf(FactorBName(matrix.part), f->b.leftCols(rank), form.factor,
                             ImportanceBetween(*f, rank), team));
  return tensors;
}

}  // namespace

std::string MatrixForm::Label() const {
  const auto name = [](DType dtype) { return std::string(DTypeName(dtype)); };
  switch (kind) {
    case FormKind::kKept:
      return "as it was";
    case FormKind::kQuantized:
      return name(base);
    case FormKind::kFactors:
      return absl::StrCat("rank ", rank, " ", name(factor));
    case FormKind::kPlainSvd:
      return absl::StrCat("plain SVD, rank ", rank, " ", name(factor));
    case FormKind::kCorrected:
      return absl::StrCat(name(base), " + rank ", rank, " ", name(factor));
  }
  CheckFailed(__FILE__, __LINE__, "a form of no kind");
}

MatrixXd ReadMatrix(const ModelFile& file, const TensorSpec& spec, ThreadTeam& team) {
  const uint64_t row_bytes = spec.bytes() / spec.rows;
  const auto cols = static_cast<size_t>(spec.cols);
  RowMajor values(static_cast<Index>(spec.rows), static_cast<Index>(cols));
  const ModelTensor& tensor = *file.FindTensor(spec.name);
  team.ParallelFor((spec.rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](size_t chunk) {
    std::vector<uint8_t> scratch;
    const uint64_t first = chunk * kRowsPerChunk;
    const uint64_t rows = std::min<uint64_t>(kRowsPerChunk, spec.rows - first);
    const auto bytes = tensor.Bytes(first * row_bytes, rows * row_bytes, scratch);
    for (uint64_t r = 0; r < rows; ++r) {
      DequantizeRow(spec.dtype, bytes.data() + r * row_bytes, cols,
                    values.data() + (first + r) * cols);
    }
  });
  return values.cast<double>();
}

uint64_t FormBytes(const MatrixForm& form, DType dtype, uint64_t rows, uint64_t cols) {
  if (form.kind == FormKind::kKept) return PaddedBytes(dtype, rows, cols);
  uint64_t bytes = 0;
  if (form.kind == FormKind::kQuantized || form.kind == FormKind::kCorrected) {
    bytes += PaddedBytes(form.base, rows, cols);
  }
  if (form.has_factors()) {
    bytes += PaddedBytes(form.factor, form.rank, cols) + PaddedBytes(form.factor, rows, form.rank);
  }
  return bytes;
}

DType FactorTypeLike(DType dtype) { return IsFloat(dtype) ? DType::kF16 : DType::kQ8_0; }

absl::StatusOr<std::vector<FormChoice>> StudyForms(const StudiedMatrix& matrix, ThreadTeam& team) {
  auto choices = Study(matrix, team);
  if (!choices.ok()) return About(matrix, choices.status());
  return choices;
}

absl::StatusOr<std::vector<FormTensor>> MakeForm(const StudiedMatrix& matrix,
                                                 const MatrixForm& form, ThreadTeam& team) {
  auto tensors = Make(matrix, form, team);
  if (!tensors.ok()) return About(matrix, tensors.status());
  return tensors;
}

}  // namespace efedllm
