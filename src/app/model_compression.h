// Compresses a model's matrices: which form each gets by what it costs in predictions, measured,
// and what comes of it beside the other ways to save as much.
#ifndef EFEDLLM_APP_MODEL_COMPRESSION_H_
#define EFEDLLM_APP_MODEL_COMPRESSION_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "app/compression_plan.h"
#include "app/matrix_forms.h"
#include "layers/compute.h"
#include "model/logits_source.h"
#include "model/model_file.h"

namespace efedllm {

// Which forms may be used. The names stand in reports.
enum class CompressionMethod {
  kUniformSvd,  // plain truncated SVD, every matrix to the same share: what one would try first
  kPlainSvd,    // plain truncated SVD, ranks by measured loss
  kFactors,     // factors for the inputs, as precise as the file
  kSvd,         // such factors, quantized or not, and low-rank corrections of quantized matrices
  kQuantize,    // plain quantization, a type for each matrix
  kAny,         // all of these
};
absl::string_view MethodName(CompressionMethod method);
// nullopt: none that can be written: svd, factors, quantize, any.
std::optional<CompressionMethod> WritableMethod(absl::string_view name);

struct CompressionOptions {
  CompressionBudget budget;
  CompressionMethod method = CompressionMethod::kSvd;
  std::string out;  // path of the new file
  TextWindows calibration, held_out;
  std::function<void(double share, absl::string_view what)> progress;
};

struct MethodResult {
  CompressionMethod method = CompressionMethod::kSvd;
  uint64_t bytes = 0;                              // of the whole file
  double mean_kl = 0, max_kl = 0, perplexity = 0;  // on the held-out text
  double expected_kl = 0;  // on the calibration's text, from each matrix alone
};

struct CompressedMatrix {
  std::string part;
  MatrixForm form;
  uint64_t bytes_before = 0, bytes = 0;
  double expected_kl = 0;
};

struct CompressionReport {
  uint64_t original_bytes = 0;
  double original_perplexity = 0;
  uint64_t budget_bytes = 0;  // of the file; what the methods were compared at
  uint64_t calibration_tokens = 0, held_out_tokens = 0;
  MethodResult written;
  std::vector<MethodResult> methods;  // in order of the enum; without those that can't be so small
  std::vector<CompressedMatrix> matrices;  // of the written file
  std::string recommendation;
};

// Works layer by layer: of the model's matrices one layer's are in memory, with the second moments
// of their inputs; the text's activations stay. Writes options.out, in full or not at all.
// InvalidArgument: the model is factored already or has nothing to compress; ResourceExhausted: the
// budget is out of reach; both say what to do.
absl::StatusOr<CompressionReport> CompressModel(const ModelFile& file,
                                                const CompressionOptions& options,
                                                Compute& compute);

// What the numbers say, in words.
std::string Recommend(const CompressionReport& report);

nlohmann::json CompressionReportJson(const CompressionReport& report);

}  // namespace efedllm

#endif  // EFEDLLM_APP_MODEL_COMPRESSION_H_
