// What every codec costs a model, in bytes and in what it predicts: the measurements behind
// `efedllm-ctl codec report`.
#ifndef EFEDLLM_APP_CODEC_REPORT_H_
#define EFEDLLM_APP_CODEC_REPORT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "app/coded_model.h"
#include "app/eval_tasks.h"
#include "app/local_run.h"
#include "model/logits_source.h"

namespace efedllm {

struct CodecPoint {
  std::string name;                  // as eval kl --codec takes it
  std::vector<std::string> codings;  // of each boundary that was coded
  double bytes = 0;                  // a token and hop, frames with all that is in them
  double payload_bytes = 0;          // of them, as the codec wrote them
  double mean_kl = 0, max_kl = 0, top1_agreement = 0, perplexity = 0;
  double plain_share = 0;          // of rows that fell back to a finer codec
  std::optional<double> accuracy;  // of tasks
  // Where all is KLT: what no code of independent Gaussians of the basis's variances can do better
  // than at this distortion (reverse water-filling), payload bytes.
  std::optional<double> bound_bytes;
};

struct CodecCurve {
  std::string name;                // "KLT", "scalar", "int blocks", "f16"
  std::vector<CodecPoint> points;  // from many bytes to few
};

struct BoundaryFindings {
  uint32_t after_layers = 0;
  std::vector<CodecCurve> curves;  // this boundary alone is coded
  std::vector<uint32_t> massive;   // dimensions
  // Shares of the energy by falling eigenvalue: of the rows as they are (empty: too wide to ask),
  // without the mean and each scaled to an RMS of 1, and without the massive dimensions too.
  std::vector<double> raw_spectrum, centred_spectrum, coded_spectrum;
};

struct CodecReport {
  std::string model;
  uint32_t d_model = 0, layers = 0;
  uint64_t tokens = 0;      // that were predicted
  uint64_t all_tokens = 0;  // of the text; more if time was short
  uint64_t questions = 0;   // of tasks
  double perplexity = 0;    // uncoded
  std::optional<double> accuracy;
  std::vector<CodecCurve> together;  // all boundaries coded
  std::vector<CodecPoint> levels;    // the same, at the product's levels
  std::vector<CodecPoint> decoding;  // levels and f16, in frames of decoding
  uint32_t decoding_batch = 0;
  std::vector<BoundaryFindings> boundaries;

  uint64_t f16_bytes() const { return uint64_t{2} * d_model; }
};

struct CodecReportOptions {
  uint32_t decoding_batch = 8;
  double seconds = 600;  // about; a long text is cut so that it fits
  std::function<void(double share, absl::string_view what)> progress;
};

// Options of the model to load for a report: so many stages, and room for what is compared.
LocalModelOptions CodecReportModelOptions(std::vector<LayerRange> stages, uint32_t window,
                                          uint32_t decoding_batch);

// text: windows of one length at most (CodecReportModelOptions's window). tasks may be empty.
// FailedPrecondition: a boundary without basis.
absl::StatusOr<CodecReport> MeasureCodecs(LocalRun& run, const BoundaryBases& bases,
                                          const TextWindows& text,
                                          const std::vector<EvalTask>& tasks,
                                          const CodecReportOptions& options);

// Of a curve whose KL falls with its bytes, on straight lines of log KL: what it costs at so many
// bytes, and where it costs so much. nullopt: beyond its ends.
std::optional<double> KlAtBytes(const CodecCurve& curve, double bytes);
std::optional<double> BytesAtKl(const CodecCurve& curve, double mean_kl);

const CodecCurve* FindCurve(const std::vector<CodecCurve>& curves, absl::string_view name);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CODEC_REPORT_H_
