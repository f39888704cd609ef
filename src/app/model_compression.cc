#include "app/model_compression.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "app/compressed_file.h"
#include "app/layered_model.h"
#include "app/matrix_study.h"
#include "app/variant_planner.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "model/factors.h"
#include "model/gguf_writer.h"
#include "model/model_config.h"

namespace efedllm {
namespace {

constexpr CompressionMethod kMethods[] = {
    CompressionMethod::kUniformSvd, CompressionMethod::kPlainSvd, CompressionMethod::kFactors,
    CompressionMethod::kSvd,        CompressionMethod::kQuantize, CompressionMethod::kAny};
// What one matrix's change does to the model's KL is measured at about these losses: small enough
// that effects add up, large enough to stand out.
constexpr double kProbedRounding = 1e-3, kProbedTruncation = 2e-2;
// All probes' activations together.
constexpr uint64_t kProbeBytes = 512u << 20;
constexpr size_t kLeastProbeTokens = 64, kMostProbeTokens = 512;
constexpr int kKlTrials = 6;

// One matrix in one form, run through the rest of the model.
struct Probe {
  size_t matrix = 0;
  bool truncation = false;
  double loss = 0;
  Matrix hidden;
};

class ModelCompressor {
 public:
  ModelCompressor(const ModelFile& file, const CompressionOptions& options, LayeredModel& model,
                  Compute& compute, std::vector<MatrixPlace> places)
      : file_(file),
        options_(options),
        model_(model),
        compute_(compute),
        output_(file, places, MethodName(options.method)) {
    for (MatrixPlace& place : places) studies_.push_back({std::move(place), {}, 0, 0});
  }

  absl::StatusOr<CompressionReport> Run() {
    RETURN_IF_ERROR(StudyMatrices());
    CompressionReport report;
    report.original_bytes = file_.file_bytes();
    for (const auto& window : options_.calibration.windows) {
      report.calibration_tokens += window.size();
    }
    for (const auto& window : options_.held_out.windows) report.held_out_tokens += window.size();
    ASSIGN_OR_RETURN(report.budget_bytes, BudgetBytes());
    ASSIGN_OR_RETURN(const ModelVariant written,
                     Planner().ForBytes(options_.method, report.budget_bytes));
    RETURN_IF_ERROR(MeasureAll(written, report));
    Describe(written, report);
    report.recommendation = Recommend(report);
    return report;
  }

 private:
  void Progress(double share, absl::string_view what) {
    if (options_.progress) options_.progress(share, what);
  }
  // Of passes over the layers, the shares of which are unlike; good enough for a bar.
  void LayerProgress(double from, double to, uint32_t layer, absl::string_view what) {
    const double share = static_cast<double>(layer) / model_.config().layers;
    Progress(from + (to - from) * share,
             absl::StrCat(what, ", layer ", layer + 1, " of ", model_.config().layers));
  }

  VariantPlanner Planner() const { return {studies_, output_.FixedBytes(), file_.file_bytes()}; }

  TextWindows ProbeText() const;
  absl::Status StudyMatrices();
  absl::Status AddProbes(const LayerVisit& layer, ConstMatrixRef inputs, const TextWindows& text,
                         size_t matrix, std::vector<Probe>& probes);

  absl::StatusOr<uint64_t> BudgetBytes();
  absl::StatusOr<uint64_t> BytesForKl();

  absl::StatusOr<std::vector<VariantQuality>> Measure(const std::vector<ModelVariant>& variants,
                                                      bool write_first, double from, double to);
  absl::Status MeasureAll(const ModelVariant& written, CompressionReport& report);
  void Describe(const ModelVariant& written, CompressionReport& report) const;

  const ModelFile& file_;
  const CompressionOptions& options_;
  LayeredModel& model_;
  Compute& compute_;
  const CompressedFile output_;
  std::vector<MatrixStudy> studies_;
};

// The first windows of the calibration's text, the first one cut if need be.
TextWindows ModelCompressor::ProbeText() const {
  const uint64_t per_token = 2 * studies_.size() * model_.config().d_model * sizeof(float);
  const size_t most = std::clamp<size_t>(kProbeBytes / std::max<uint64_t>(1, per_token),
                                         kLeastProbeTokens, kMostProbeTokens);
  TextWindows text;
  size_t tokens = 0;
  for (const std::vector<int32_t>& window : options_.calibration.windows) {
    const size_t take = std::min(window.size(), most - tokens);
    if (take < 2) break;
    text.windows.emplace_back(window.begin(), window.begin() + static_cast<std::ptrdiff_t>(take));
    tokens += take;
    if (take < window.size()) break;
  }
  return text;
}

absl::Status ModelCompressor::AddProbes(const LayerVisit& layer, ConstMatrixRef inputs,
                                        const TextWindows& text, size_t matrix,
                                        std::vector<Probe>& probes) {
  MatrixStudy& study = studies_[matrix];
  const StudiedMatrix studied = layer.Study(study.place);
  ASSIGN_OR_RETURN(study.forms, StudyForms(studied, *compute_.team));
  for (const bool truncation : {false, true}) {
    const FormKind kind = truncation ? FormKind::kFactors : FormKind::kQuantized;
    const double wanted = truncation ? kProbedTruncation : kProbedRounding;
    const FormChoice* nearest = nullptr;
    for (const FormChoice& choice : study.forms) {
      if (choice.form.kind != kind || choice.loss <= 0) continue;
      const auto distance = [&](double loss) { return std::fabs(std::log(loss / wanted)); };
      if (nearest == nullptr || distance(choice.loss) < distance(nearest->loss)) nearest = &choice;
    }
    if (nearest == nullptr) continue;
    ASSIGN_OR_RETURN(const std::vector<FormTensor> tensors,
                     MakeForm(studied, nearest->form, *compute_.team));
    ASSIGN_OR_RETURN(const std::vector<StageTensor> replaced,
                     LayerVisit::Replace(layer.tensors(), study.place, tensors));
    Probe probe{matrix, truncation, nearest->loss, Matrix(inputs.rows, inputs.cols)};
    std::copy_n(inputs.data, inputs.rows * inputs.cols, probe.hidden.row(0));
    RETURN_IF_ERROR(model_.RunLayer(layer.layer(), replaced, text, {probe.hidden.ref()}));
    probes.push_back(std::move(probe));
  }
  return absl::OkStatus();
}

absl::Status ModelCompressor::StudyMatrices() {
  const TextWindows text = ProbeText();
  std::vector<Probe> probes;
  ASSIGN_OR_RETURN(Matrix plain, model_.Embed(text));
  const auto visit = [&](const LayerVisit& layer) -> absl::Status {
    LayerProgress(0, 0.5, layer.layer(), "studying matrices");
    std::vector<MatrixRef> streams;
    streams.reserve(probes.size());
    for (Probe& probe : probes) streams.push_back(probe.hidden.ref());
    RETURN_IF_ERROR(model_.RunLayer(layer.layer(), layer.tensors(), text, streams));
    for (size_t i = 0; i < studies_.size(); ++i) {
      if (studies_[i].place.layer != layer.layer()) continue;
      RETURN_IF_ERROR(AddProbes(layer, plain.ref(), text, i, probes));
    }
    return model_.RunLayer(layer.layer(), layer.tensors(), text, {plain.ref()});
  };
  RETURN_IF_ERROR(LayerWalk(file_, model_, options_.calibration, compute_).Run(visit));
  std::vector<ConstMatrixRef> variants;
  variants.reserve(probes.size());
  for (const Probe& probe : probes) variants.push_back(probe.hidden.ref());
  ASSIGN_OR_RETURN(const std::vector<VariantQuality> quality,
                   model_.Compare(text, plain.ref(), variants));
  for (size_t i = 0; i < probes.size(); ++i) {
    MatrixStudy& study = studies_[probes[i].matrix];
    const double kl = quality[i + 1].mean_kl / probes[i].loss;
    (probes[i].truncation ? study.kl_of_truncation : study.kl_of_rounding) = kl;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ModelCompressor::BudgetBytes() {
  switch (options_.budget.kind) {
    case CompressionBudget::Kind::kRatio:
      return static_cast<uint64_t>(options_.budget.ratio * static_cast<double>(file_.file_bytes()));
    case CompressionBudget::Kind::kBytes:
      return options_.budget.bytes;
    case CompressionBudget::Kind::kMeanKl:
      return BytesForKl();
  }
  return absl::InternalError("a budget of no kind");
}

// Expected and measured KL are not the same: text and interactions differ. So the expectation is
// corrected by what comes out, a few times.
absl::StatusOr<uint64_t> ModelCompressor::BytesForKl() {
  const VariantPlanner planner = Planner();
  const double allowed = options_.budget.mean_kl;
  double aim = allowed;
  uint64_t best = file_.file_bytes();
  for (int trial = 0; trial < kKlTrials; ++trial) {
    const uint64_t bytes = planner.BytesForKl(options_.method, aim);
    ASSIGN_OR_RETURN(const ModelVariant variant, planner.ForBytes(options_.method, bytes));
    const double share = 0.5 + 0.3 * trial / kKlTrials;
    ASSIGN_OR_RETURN(const std::vector<VariantQuality> quality,
                     Measure({variant}, false, share, share + 0.3 / kKlTrials));
    const double measured = quality[1].mean_kl;
    if (measured <= allowed) best = std::min(best, bytes);
    if (measured <= allowed && measured > 0.9 * allowed) break;
    aim *= std::clamp(0.95 * allowed / std::max(measured, 1e-12), 0.1, 10.0);
  }
  return best;
}

absl::StatusOr<std::vector<VariantQuality>> ModelCompressor::Measure(
    const std::vector<ModelVariant>& variants, bool write_first, double from, double to) {
  std::unique_ptr<GgufWriter> writer;
  if (write_first) {
    ASSIGN_OR_RETURN(writer, output_.Begin(options_.out, variants[0]));
  }
  ASSIGN_OR_RETURN(Matrix reference, model_.Embed(options_.held_out));
  std::vector<Matrix> hidden(variants.size(), reference);
  const auto visit = [&](const LayerVisit& layer) -> absl::Status {
    LayerProgress(from, to, layer.layer(), write_first ? "writing and measuring" : "measuring");
    std::vector<std::vector<StageTensor>> tensors(variants.size(), layer.tensors());
    for (size_t i = 0; i < studies_.size(); ++i) {
      const MatrixPlace& place = studies_[i].place;
      if (place.layer != layer.layer()) continue;
      const StudiedMatrix studied = layer.Study(place);
      for (size_t v = 0; v < variants.size(); ++v) {
        const MatrixForm& form = variants[v][i];
        const bool writes = v == 0 && writer != nullptr;
        if (form.kind == FormKind::kKept) {
          if (writes) RETURN_IF_ERROR(output_.Keep(place, *writer));
          continue;
        }
        ASSIGN_OR_RETURN(const std::vector<FormTensor> made,
                         MakeForm(studied, form, *compute_.team));
        for (const FormTensor& tensor : made) {
          if (writes) RETURN_IF_ERROR(writer->Append(tensor.bytes));
        }
        ASSIGN_OR_RETURN(tensors[v], LayerVisit::Replace(std::move(tensors[v]), place, made));
      }
    }
    for (size_t v = 0; v < variants.size(); ++v) {
      RETURN_IF_ERROR(
          model_.RunLayer(layer.layer(), tensors[v], options_.held_out, {hidden[v].ref()}));
    }
    return model_.RunLayer(layer.layer(), layer.tensors(), options_.held_out, {reference.ref()});
  };
  RETURN_IF_ERROR(LayerWalk(file_, model_, options_.calibration, compute_).Run(visit));
  std::vector<ConstMatrixRef> outputs;
  outputs.reserve(hidden.size());
  for (const Matrix& variant : hidden) outputs.push_back(variant.ref());
  ASSIGN_OR_RETURN(std::vector<VariantQuality> quality,
                   model_.Compare(options_.held_out, reference.ref(), outputs));
  if (writer != nullptr) RETURN_IF_ERROR(writer->Finish());
  return quality;
}

absl::Status ModelCompressor::MeasureAll(const ModelVariant& written, CompressionReport& report) {
  std::vector<ModelVariant> variants = {written};
  std::vector<CompressionMethod> methods = {options_.method};
  for (const CompressionMethod method : kMethods) {
    // A method that can't make the model so small has nothing to show.
    const absl::StatusOr<ModelVariant> variant = Planner().ForBytes(method, report.budget_bytes);
    if (method == options_.method || !variant.ok()) continue;
    variants.push_back(*variant);
    methods.push_back(method);
  }
  ASSIGN_OR_RETURN(const std::vector<VariantQuality> quality, Measure(variants, true, 0.8, 1));
  report.original_perplexity = quality[0].perplexity;
  for (size_t i = 0; i < variants.size(); ++i) {
    const VariantQuality& q = quality[i + 1];
    report.methods.push_back({methods[i], output_.Bytes(variants[i]), q.mean_kl, q.max_kl,
                              q.perplexity, Planner().ExpectedKl(variants[i])});
  }
  report.written = report.methods[0];
  std::sort(report.methods.begin(), report.methods.end(),
            [](const MethodResult& a, const MethodResult& b) { return a.method < b.method; });
  return absl::OkStatus();
}

void ModelCompressor::Describe(const ModelVariant& written, CompressionReport& report) const {
  for (size_t i = 0; i < written.size(); ++i) {
    const FormChoice& choice = studies_[i].Find(written[i]);
    report.matrices.push_back({studies_[i].place.part, choice.form, studies_[i].forms[0].bytes,
                               choice.bytes, studies_[i].ExpectedKl(choice)});
  }
}

}  // namespace

absl::StatusOr<CompressionReport> CompressModel(const ModelFile& file,
                                                const CompressionOptions& options,
                                                Compute& compute) {
  if (HasFactors(file)) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), " is factored already; compress the model that it was made from"));
  }
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(file));
  ASSIGN_OR_RETURN(std::vector<MatrixPlace> places, CompressibleMatrices(config, file));
  if (places.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), " has no matrix that could be compressed"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<LayeredModel> model,
                   LayeredModel::Create(file, config, compute));
  return ModelCompressor(file, options, *model, compute, std::move(places)).Run();
}

}  // namespace efedllm
