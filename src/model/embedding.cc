#include "model/embedding.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "layers/elementwise.h"
#include "model/tensor_loader.h"
#include "model/weights.h"
#include "tensor/blocks.h"

namespace efedllm {

absl::StatusOr<Embedding> Embedding::Create(const ModelConfig& config, const ModelFile& file) {
  ASSIGN_OR_RETURN(const TensorSpec spec, EmbeddingTensor(config, file));
  Embedding embedding;
  embedding.dtype_ = spec.dtype;
  embedding.rows_ = spec.rows;
  embedding.cols_ = spec.cols;
  if (config.traits().scaled_embedding) {
    embedding.scale_ = std::sqrt(static_cast<float>(config.d_model));
  }
  embedding.bytes_ = file.FindTensor(spec.name)->bytes;
  return embedding;
}

absl::Status Embedding::Lookup(absl::Span<const int32_t> tokens, MatrixRef out) const {
  CHECK(out.rows == tokens.size() && out.cols == cols_);
  for (const int32_t token : tokens) {
    if (token >= 0 && static_cast<uint64_t>(token) < rows_) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token ", token, " is outside of the vocabulary [0, ", rows_, ")"));
  }
  const uint64_t row_bytes = *RowBytes(dtype_, cols_);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const uint8_t* row = bytes_.data() + static_cast<uint64_t>(tokens[i]) * row_bytes;
    DequantizeRow(dtype_, row, cols_, out.row(i));
    if (scale_ != 1) {
      for (size_t j = 0; j < cols_; ++j) out.row(i)[j] *= scale_;
    }
    if (std::all_of(out.row(i), out.row(i) + cols_, [](float x) { return std::isfinite(x); })) {
      continue;
    }
    return absl::DataLossError(absl::StrCat("the embedding of token ", tokens[i],
                                            " is not finite: token_embd.weight is damaged, "
                                            "download the model again"));
  }
  return absl::OkStatus();
}

OutputHead::OutputHead(const ModelConfig& config, std::shared_ptr<const PackedTensor> weight,
                       std::vector<float> norm, Compute& compute)
    : config_(config),
      weight_(std::move(weight)),
      norm_(std::move(norm)),
      compute_(compute),
      linear_(compute) {}

absl::StatusOr<std::unique_ptr<OutputHead>> OutputHead::Create(const ModelConfig& config,
                                                               const ModelFile& file,
                                                               Compute& compute) {
  ASSIGN_OR_RETURN(const HeadSpecs specs, HeadTensors(config, file));
  ASSIGN_OR_RETURN(const std::vector<StageTensor> tensors,
                   LoadTensors(file, {specs.norm, specs.weight}, {.team = compute.team.get()}));
  const absl::Span<const float> norm = tensors[0].data->vector();
  return std::unique_ptr<OutputHead>(new OutputHead(
      config, tensors[1].data, std::vector<float>(norm.begin(), norm.end()), compute));
}

void OutputHead::Logits(ConstMatrixRef hidden, MatrixRef logits) {
  CHECK(hidden.cols == config_.d_model && logits.cols == config_.vocab);
  CHECK(hidden.rows == logits.rows);
  if (hidden.rows == 0) return;
  normed_.resize(hidden.rows * hidden.cols);
  const MatrixRef normed{normed_.data(), hidden.rows, hidden.cols};
  RmsNorm(compute_, hidden, norm_, config_.norm_epsilon, normed);
  const PackedMatrix weight = weight_->matrix();
  linear_.Run(normed, {LinearTerm{weight, logits}});
  if (config_.final_soft_cap > 0) SoftCap(compute_, logits, config_.final_soft_cap);
}

}  // namespace efedllm
