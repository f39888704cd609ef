#include "app/codec_report.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "app/coded_model_choice.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "model/text_quality.h"
#include "svd/decomposition.h"
#include "svd/gram.h"

namespace efedllm {
namespace {

constexpr SequenceId kSequence{1};
constexpr uint32_t kTaskContext = 1024;
constexpr size_t kDecodedTokens = 64;   // of a window
constexpr size_t kDecodedWindows = 16;  // at most
constexpr uint32_t kWidestSpectrum = 2048;
constexpr double kTaskShare = 0.5;  // of the time

struct CurveSpec {
  const char* name;
  std::vector<std::string> codecs;  // from many bytes to few
};

const std::vector<CurveSpec>& TogetherSpecs() {
  static const auto* const specs = new std::vector<CurveSpec>{
      {"KLT", {"klt:0.05", "klt:0.09", "klt:0.15", "klt:0.25", "klt:0.4", "klt:0.6"}},
      {"scalar",
       {"scalar:0.05", "scalar:0.09", "scalar:0.15", "scalar:0.25", "scalar:0.4", "scalar:0.6"}},
      {"int blocks", {"int8", "int7", "int6", "int5", "int4", "int3", "int2"}},
      {"f16", {"f16"}}};
  return *specs;
}

const std::vector<CurveSpec>& AloneSpecs() {
  static const auto* const specs = new std::vector<CurveSpec>{
      {"KLT", {"klt:0.09", "klt:0.18", "klt:0.35", "klt:0.6"}},
      {"scalar", {"scalar:0.09", "scalar:0.18", "scalar:0.35", "scalar:0.6"}},
      {"int blocks", {"int6", "int5", "int4", "int3"}}};
  return *specs;
}

constexpr const char* kLevels[] = {"lossless", "transparent", "balanced", "small"};
constexpr const char* kDecoded[] = {"f16", "int8", "transparent", "balanced", "small"};

// Bytes of a row in the best of codes, for Gaussian coefficients and the noise of the step.
double GaussianBoundBytes(const BoundaryBasis& basis, CodecSetting setting) {
  const double step = static_cast<double>(StepSize(setting.step));
  const double log_noise = std::log2(step) - 0.5 * std::log2(12.0);  // of its standard deviation
  double bits = 16 * static_cast<double>(basis.massive.size());
  for (const int16_t log_sigma : basis.klt.log_sigma) {
    bits += std::max(0.0, log_sigma / 64.0 - log_noise);
  }
  return bits / 8;
}

// Text and tasks, their uncoded results, and how far along the measurements are.
class Measurement {
 public:
  Measurement(LocalRun& run, const BoundaryBases& bases, const std::vector<EvalTask>& tasks,
              const CodecReportOptions& options)
      : run_(run), bases_(bases), tasks_(tasks), options_(options) {}

  absl::StatusOr<CodecReport> Run(const TextWindows& text) {
    LocalModel& model = *run_.model;
    report_.d_model = model.config().d_model;
    report_.layers = model.config().layers;
    report_.all_tokens = text.predictions();
    report_.decoding_batch = options_.decoding_batch;
    for (const LayerRange& stage : model.options().stages) {
      if (stage.first > 0) report_.boundaries.push_back({.after_layers = stage.first});
    }
    RETURN_IF_ERROR(Shorten(text));
    RETURN_IF_ERROR(MeasureUncoded());
    coded_ = std::make_unique<CodedModel>(model, bases_);
    coded_->Pause(true);
    RETURN_IF_ERROR(MeasureTogether());
    for (size_t i = 0; i < report_.boundaries.size(); ++i) RETURN_IF_ERROR(MeasureAlone(i));
    RETURN_IF_ERROR(MeasureDecoding());
    return std::move(report_);
  }

 private:
  static size_t EvaluationsTogether() {
    size_t count = std::size(kLevels);
    for (const CurveSpec& spec : TogetherSpecs()) count += spec.codecs.size();
    return count;
  }
  size_t Evaluations() const {
    size_t alone = 0;
    for (const CurveSpec& spec : AloneSpecs()) alone += spec.codecs.size();
    return EvaluationsTogether() + alone * report_.boundaries.size();
  }

  // As many windows as there is time for, by how long the first one takes.
  absl::Status Shorten(const TextWindows& text) {
    Show("timing");
    text_.windows = {text.windows.front()};
    RETURN_IF_ERROR(
        KeptLogits::Create(*run_.model, text_, kSequence).status());  // touches the weights
    const auto start = std::chrono::steady_clock::now();
    RETURN_IF_ERROR(KeptLogits::Create(*run_.model, text_, kSequence).status());
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    // The head and the codecs are about as much again.
    const double share = tasks_.empty() ? 1 : 1 - kTaskShare;
    const double windows =
        share * options_.seconds / (2 * took.count() * static_cast<double>(Evaluations() + 1));
    const auto count =
        static_cast<size_t>(std::clamp(windows, 1.0, static_cast<double>(text.windows.size())));
    text_.windows.assign(text.windows.begin(),
                         text.windows.begin() + static_cast<std::ptrdiff_t>(count));
    steps_ = Evaluations() + 1;
    return absl::OkStatus();
  }

  // The reference, and what the rows look like.
  absl::Status MeasureUncoded() {
    Show("the model, uncoded");
    LocalModel& model = *run_.model;
    std::vector<GramAccumulator> grams;
    if (report_.d_model <= kWidestSpectrum) {
      for (size_t i = 0; i < report_.boundaries.size(); ++i) {
        grams.emplace_back(report_.d_model, *run_.compute.team);
      }
    }
    model.SetBoundaryHook([&](const Step&, uint32_t layers, MatrixRef hidden) {
      for (size_t i = 0; i < grams.size(); ++i) {
        if (report_.boundaries[i].after_layers == layers) grams[i].Add(hidden);
      }
      return absl::OkStatus();
    });
    absl::StatusOr<std::unique_ptr<KeptLogits>> kept = KeptLogits::Create(model, text_, kSequence);
    model.SetBoundaryHook({});
    RETURN_IF_ERROR(kept.status());
    kept_ = *std::move(kept);
    ASSIGN_OR_RETURN(
        const Perplexity uncoded,
        MeasurePerplexity(*kept_, text_, [](absl::Span<const float>) { return absl::OkStatus(); }));
    report_.perplexity = uncoded.perplexity;
    report_.tokens = uncoded.tokens;
    if (!tasks_.empty()) RETURN_IF_ERROR(MeasureUncodedTasks());
    for (size_t i = 0; i < report_.boundaries.size(); ++i) {
      RETURN_IF_ERROR(FindSpectra(report_.boundaries[i], i < grams.size() ? &grams[i] : nullptr));
    }
    return absl::OkStatus();
  }

  // Of as many questions, from all over the list, as there is time for.
  absl::Status MeasureUncodedTasks() {
    const auto start = std::chrono::steady_clock::now();
    ASSIGN_OR_RETURN(report_.accuracy, Accuracy());
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    const double most =
        kTaskShare * options_.seconds / (took.count() * static_cast<double>(EvaluationsTogether()));
    if (most < 1) {
      const auto kept =
          static_cast<size_t>(std::max(1.0, std::floor(most * static_cast<double>(tasks_.size()))));
      std::vector<EvalTask> some;
      some.reserve(kept);
      for (size_t i = 0; i < kept; ++i) some.push_back(tasks_[i * tasks_.size() / kept]);
      tasks_ = std::move(some);
      ASSIGN_OR_RETURN(report_.accuracy, Accuracy());
    }
    report_.questions = tasks_.size();
    return absl::OkStatus();
  }

  absl::Status FindSpectra(BoundaryFindings& boundary, GramAccumulator* gram) {
    for (const std::shared_ptr<const BoundaryBasis>& basis : bases_) {
      if (basis->boundary != boundary.after_layers) continue;
      boundary.massive = basis->massive;
      boundary.centred_spectrum.assign(basis->spectrum_with_massive.begin(),
                                       basis->spectrum_with_massive.end());
      boundary.coded_spectrum.assign(basis->spectrum.begin(), basis->spectrum.end());
    }
    if (gram == nullptr) return absl::OkStatus();
    ASSIGN_OR_RETURN(const SymmetricEigen eigen, EigenOfSymmetric(gram->Mean()));
    const double sum = eigen.values.sum();
    for (const double value : eigen.values) {
      boundary.raw_spectrum.push_back(sum > 0 ? std::max(value, 0.0) / sum : 0);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<double> Accuracy() {
    ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Create(run_.file));
    ASSIGN_OR_RETURN(const ChatTemplate chat, ChatTemplate::ForModel(run_.file, *tokenizer));
    Answerer answerer(*run_.model, *tokenizer, chat);
    TaskScore score;
    for (const EvalTask& task : tasks_) {
      ASSIGN_OR_RETURN(const std::string answer, answerer.Answer(task.messages));
      score.total += 1;
      score.correct += answer == task.answer;
    }
    return score.accuracy();
  }

  absl::Status MeasureTogether() {
    for (const CurveSpec& spec : TogetherSpecs()) {
      CodecCurve curve{spec.name, {}};
      for (const std::string& codec : spec.codecs) {
        ASSIGN_OR_RETURN(CodecPoint point, Measure(codec, std::nullopt));
        curve.points.push_back(std::move(point));
      }
      report_.together.push_back(std::move(curve));
    }
    for (const char* level : kLevels) {
      ASSIGN_OR_RETURN(CodecPoint point, Measure(level, std::nullopt));
      report_.levels.push_back(std::move(point));
    }
    return absl::OkStatus();
  }

  absl::Status MeasureAlone(size_t boundary) {
    for (const CurveSpec& spec : AloneSpecs()) {
      CodecCurve curve{spec.name, {}};
      for (const std::string& codec : spec.codecs) {
        ASSIGN_OR_RETURN(CodecPoint point, Measure(codec, boundary));
        curve.points.push_back(std::move(point));
      }
      report_.boundaries[boundary].curves.push_back(std::move(curve));
    }
    return absl::OkStatus();
  }

  absl::Status MeasureDecoding() {
    Show("frames of decoding");
    TextWindows text;
    for (const std::vector<int32_t>& window : text_.windows) {
      for (size_t first = 0; first + 2 <= window.size(); first += kDecodedTokens) {
        if (text.windows.size() >= std::max<size_t>(kDecodedWindows, options_.decoding_batch))
          break;
        const size_t last = std::min(first + kDecodedTokens, window.size());
        text.windows.emplace_back(window.begin() + static_cast<std::ptrdiff_t>(first),
                                  window.begin() + static_cast<std::ptrdiff_t>(last));
      }
    }
    ASSIGN_OR_RETURN(const std::unique_ptr<KeptLogits> reference,
                     KeptLogits::Create(*run_.model, text, kSequence));
    for (const char* codec : kDecoded) {
      ASSIGN_OR_RETURN(CodecPoint point, Use(codec, std::nullopt));
      DecodedLogits source(*run_.model, text, options_.decoding_batch, kSequence);
      RETURN_IF_ERROR(Compare(source, *reference, text, point));
      report_.decoding.push_back(std::move(point));
    }
    return absl::OkStatus();
  }

  // Codes all boundaries so from now on, or only one.
  absl::StatusOr<CodecPoint> Use(const std::string& codec, std::optional<size_t> only) {
    ASSIGN_OR_RETURN(const CodecChoice choice, CodecChoice::Parse(codec));
    std::vector<std::optional<BoundaryCoding>> codings = choice.ForAll(*coded_, report_.d_model);
    CodecPoint point;
    point.name = codec;
    for (size_t i = 0; i < codings.size(); ++i) {
      if (only && i != *only) codings[i].reset();
      if (codings[i]) point.codings.push_back(codings[i]->Label());
    }
    AddBound(codings, point);
    RETURN_IF_ERROR(coded_->Use(std::move(codings)));
    return point;
  }

  void AddBound(const std::vector<std::optional<BoundaryCoding>>& codings, CodecPoint& point) {
    double sum = 0;
    for (size_t i = 0; i < codings.size(); ++i) {
      if (!codings[i]) continue;
      if (codings[i]->block_bits > 0 || codings[i]->setting.id != CodecId::kKlt) return;
      sum += GaussianBoundBytes(*coded_->basis(i), codings[i]->setting);
    }
    point.bound_bytes = sum / static_cast<double>(point.codings.size());
  }

  absl::Status Compare(LogitsSource& source, LogitsSource& reference, const TextWindows& text,
                       CodecPoint& point) {
    CodedLogits coded(source, *coded_);
    ASSIGN_OR_RETURN(const Divergence divergence, MeasureDivergence(coded, reference, text));
    point.mean_kl = divergence.mean_kl;
    point.max_kl = divergence.max_kl;
    point.top1_agreement = divergence.top1_agreement;
    point.perplexity = divergence.model.perplexity;
    const double count = static_cast<double>(point.codings.size());
    for (const BoundaryTraffic& traffic : coded_->traffic()) {
      point.bytes += traffic.bytes_per_row() / count;
      point.payload_bytes += traffic.payload_per_row() / count;
      point.plain_share += traffic.plain_share() / count;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<CodecPoint> Measure(const std::string& codec, std::optional<size_t> only) {
    Show(only ? absl::StrCat(codec, " after layer ", report_.boundaries[*only].after_layers)
              : absl::StrCat(codec, " at all boundaries"));
    ASSIGN_OR_RETURN(CodecPoint point, Use(codec, only));
    ModelLogits source(*run_.model, kSequence);
    RETURN_IF_ERROR(Compare(source, *kept_, text_, point));
    if (!only && !tasks_.empty()) {
      coded_->Pause(false);
      absl::StatusOr<double> accuracy = Accuracy();
      coded_->Pause(true);
      ASSIGN_OR_RETURN(point.accuracy, std::move(accuracy));
    }
    return point;
  }

  void Show(const std::string& what) {
    if (!options_.progress) return;
    options_.progress(static_cast<double>(done_) / static_cast<double>(std::max<size_t>(steps_, 1)),
                      what);
    if (steps_ > 0) ++done_;
  }

  LocalRun& run_;
  const BoundaryBases& bases_;
  std::vector<EvalTask> tasks_;
  const CodecReportOptions& options_;
  TextWindows text_;
  std::unique_ptr<KeptLogits> kept_;
  std::unique_ptr<CodedModel> coded_;
  CodecReport report_;
  size_t steps_ = 0, done_ = 0;
};

}  // namespace

LocalModelOptions CodecReportModelOptions(std::vector<LayerRange> stages, uint32_t window,
                                          uint32_t decoding_batch) {
  LocalModelOptions options;
  options.stages = std::move(stages);
  options.most_context = std::max(window, kTaskContext);
  options.max_sequences = std::max(decoding_batch, 1u);
  options.kv_tokens = uint64_t{options.most_context} + uint64_t{kDecodedTokens} * decoding_batch;
  return options;
}

absl::StatusOr<CodecReport> MeasureCodecs(LocalRun& run, const BoundaryBases& bases,
                                          const TextWindows& text,
                                          const std::vector<EvalTask>& tasks,
                                          const CodecReportOptions& options) {
  return Measurement(run, bases, tasks, options).Run(text);
}

const CodecCurve* FindCurve(const std::vector<CodecCurve>& curves, absl::string_view name) {
  for (const CodecCurve& curve : curves) {
    if (curve.name == name) return &curve;
  }
  return nullptr;
}

std::optional<double> KlAtBytes(const CodecCurve& curve, double bytes) {
  for (size_t i = 0; i + 1 < curve.points.size(); ++i) {
    const CodecPoint &more = curve.points[i], &less = curve.points[i + 1];
    if (bytes > more.bytes || bytes < less.bytes) continue;
    const double share = (more.bytes - bytes) / (more.bytes - less.bytes);
    return std::exp((1 - share) * std::log(more.mean_kl) + share * std::log(less.mean_kl));
  }
  return std::nullopt;
}

std::optional<double> BytesAtKl(const CodecCurve& curve, double mean_kl) {
  for (size_t i = 0; i + 1 < curve.points.size(); ++i) {
    const CodecPoint &more = curve.points[i], &less = curve.points[i + 1];
    if (mean_kl < more.mean_kl || mean_kl > less.mean_kl) continue;
    const double share = std::log(mean_kl / more.mean_kl) / std::log(less.mean_kl / more.mean_kl);
    return more.bytes + share * (less.bytes - more.bytes);
  }
  return std::nullopt;
}

}  // namespace efedllm
