// From what was measured of each matrix to a form for each.
#ifndef EFEDLLM_APP_VARIANT_PLANNER_H_
#define EFEDLLM_APP_VARIANT_PLANNER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "app/compressed_file.h"
#include "app/matrix_forms.h"
#include "app/matrix_study.h"
#include "app/model_compression.h"

namespace efedllm {

// A matrix and all that it may become.
struct MatrixStudy {
  MatrixPlace place;
  std::vector<FormChoice> forms;  // the first: as it is
  // Nats of the model's mean KL for each unit of a form's loss: of what factors leave out, and of
  // what rounding does.
  double kl_of_truncation = 0, kl_of_rounding = 0;

  double ExpectedKl(const FormChoice& choice) const;
  // CHECK: it was studied.
  const FormChoice& Find(const MatrixForm& form) const;
};

// Pure. Borrows the studies.
class VariantPlanner {
 public:
  // fixed_bytes: of the file without the matrices. file_bytes: of the original, for messages.
  VariantPlanner(const std::vector<MatrixStudy>& matrices, uint64_t fixed_bytes,
                 uint64_t file_bytes)
      : matrices_(matrices), fixed_bytes_(fixed_bytes), file_bytes_(file_bytes) {}

  // The least expected KL in a file of at most so many bytes. ResourceExhausted: the method can't
  // make it so small; says how small it can.
  absl::StatusOr<ModelVariant> ForBytes(CompressionMethod method, uint64_t bytes) const;
  // The fewest bytes of a file that is expected to have at most this mean KL.
  uint64_t BytesForKl(CompressionMethod method, double kl) const;

  double ExpectedKl(const ModelVariant& variant) const;

 private:
  absl::StatusOr<ModelVariant> UniformSvd(uint64_t room) const;
  absl::Status OutOfReach(CompressionMethod method, uint64_t least) const;

  const std::vector<MatrixStudy>& matrices_;
  const uint64_t fixed_bytes_, file_bytes_;
};

}  // namespace efedllm

#endif  // EFEDLLM_APP_VARIANT_PLANNER_H_
