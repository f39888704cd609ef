// The forms that a model's matrix can be stored in, what each loses and takes, and its tensors.
#ifndef EFEDLLM_APP_MATRIX_FORMS_H_
#define EFEDLLM_APP_MATRIX_FORMS_H_

#include <Eigen/Dense>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cluster/tensor_spec.h"
#include "common/thread_team.h"
#include "model/model_file.h"
#include "tensor/dtype.h"

namespace efedllm {

enum class FormKind {
  kKept,       // as it was
  kQuantized,  // in `base`
  kFactors,    // two factors for its inputs (svd/factorization.h), in `factor`
  kPlainSvd,   // two factors of the plain truncated SVD, in `factor`: to compare with
  kCorrected,  // in `base`, and two factors in `factor` of what that lost
};

struct MatrixForm {
  FormKind kind = FormKind::kKept;
  DType base = DType::kF16;
  DType factor = DType::kF16;
  uint32_t rank = 0;

  bool has_factors() const {
    return kind == FormKind::kFactors || kind == FormKind::kPlainSvd ||
           kind == FormKind::kCorrected;
  }
  std::string Label() const;  // "Q4_0 + rank 64 Q8_0"
  friend bool operator==(const MatrixForm&, const MatrixForm&) = default;
};

// One point of a matrix's choice.
struct FormChoice {
  MatrixForm form;
  uint64_t bytes = 0;  // in the file, padding included
  double loss = 0;  // E‖(W - W')·x‖² over the calibration's inputs, relative to E‖W·x‖²
};

// A matrix and what is known of its inputs.
struct StudiedMatrix {
  std::string part;  // its name without ".weight"
  DType dtype = DType::kF16;
  Eigen::MatrixXd w;     // [rows, cols]
  Eigen::MatrixXd gram;  // [cols, cols]: second moments of its inputs
};

// Reads a matrix of the file. team dequantizes.
Eigen::MatrixXd ReadMatrix(const ModelFile& file, const TensorSpec& spec, ThreadTeam& team);

// What a form takes in a file, padding included.
uint64_t FormBytes(const MatrixForm& form, DType dtype, uint64_t rows, uint64_t cols);

// The type of factors that are as precise as the file: F16 of floats, Q8_0 of what is quantized.
DType FactorTypeLike(DType dtype);

// All forms that take less than the matrix does now, and the matrix as it is. Errors of the
// decompositions, with its name.
absl::StatusOr<std::vector<FormChoice>> StudyForms(const StudiedMatrix& matrix, ThreadTeam& team);

// A tensor in place of the matrix: as the file will have it.
struct FormTensor {
  TensorSpec spec;
  std::vector<uint8_t> bytes;
};

// The tensors of a form that is not kKept.
absl::StatusOr<std::vector<FormTensor>> MakeForm(const StudiedMatrix& matrix,
                                                 const MatrixForm& form, ThreadTeam& team);

}  // namespace efedllm

#endif  // EFEDLLM_APP_MATRIX_FORMS_H_
