// The file of a compressed model: what stays of the original, and where its matrices' forms go.
#ifndef EFEDLLM_APP_COMPRESSED_FILE_H_
#define EFEDLLM_APP_COMPRESSED_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "app/matrix_forms.h"
#include "app/matrix_study.h"
#include "model/gguf_writer.h"
#include "model/model_file.h"

namespace efedllm {

// A model in another form: of each matrix.
using ModelVariant = std::vector<MatrixForm>;

class CompressedFile {
 public:
  // file is borrowed. places: the matrices, in the order of a variant's forms. method: is noted in
  // the metadata; outlives this.
  CompressedFile(const ModelFile& file, std::vector<MatrixPlace> places, absl::string_view method);

  // All but the matrices' data, as if each took three tensors.
  uint64_t FixedBytes() const;
  uint64_t Bytes(const ModelVariant& variant) const;

  // A writer that has all but the matrices already. They follow in order: bytes of MakeForm, or
  // Keep.
  absl::StatusOr<std::unique_ptr<GgufWriter>> Begin(const std::string& path,
                                                    const ModelVariant& variant) const;
  // Copies a matrix as it is.
  absl::Status Keep(const MatrixPlace& place, GgufWriter& writer) const;

 private:
  std::vector<GgufTensor> OtherTensors() const;
  std::vector<GgufTensor> Tensors(const ModelVariant& variant) const;
  absl::Status Copy(const ModelTensor& tensor, GgufWriter& writer) const;

  const ModelFile& file_;
  const std::vector<MatrixPlace> places_;
  GgufMetadata metadata_;
  std::vector<const ModelTensor*> others_;  // that stay as they are
};

}  // namespace efedllm

#endif  // EFEDLLM_APP_COMPRESSED_FILE_H_
