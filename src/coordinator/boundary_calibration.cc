#include "coordinator/boundary_calibration.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "common/machine.h"
#include "common/sha256.h"
#include "common/status_macros.h"
#include "coordinator/boundary_calibration_divergence.h"
#include "coordinator/boundary_calibration_kinds.h"
#include "coordinator/boundary_calibration_text.h"
#include "layers/compute.h"
#include "model/boundary_rows.h"
#include "model/gradient.h"
#include "model/model_config.h"
#include "model/weights.h"
#include "spdlog/spdlog.h"
#include "svd/basis_builder.h"
#include "svd/gram.h"

namespace efedllm {
namespace {

// Counts up whenever the same text gives other bases.
constexpr uint32_t kCalibrationVersion = 2;

constexpr uint64_t kMostTokens = 8192, kFewestTokens = 4096;
constexpr uint64_t kMostMetricTokens = 6400, kFewestMetricTokens = 512;
constexpr uint64_t kMostDivergenceTokens = 4096, kFewestDivergenceTokens = 256;
constexpr uint32_t kDraws = 3;
constexpr uint64_t kTasteTokens = 256;  // of a kind of text, to see how well it is known
// Operations that a part of a calibration may cost, before it takes fewer tokens: about a minute or
// two on two cores.
constexpr double kWork = 1.6e13;
constexpr uint64_t kScratchBytes = uint64_t{4} << 30;

// Multiplications and additions of one token in all layers.
double WorkPerToken(const ModelConfig& config) {
  const double d = config.d_model, head = config.head_dim;
  const double attention = d * head * (2.0 * config.heads + 2.0 * config.kv_heads);
  const double ffn = 3 * d * config.d_ffn * std::max<uint32_t>(1, config.experts_used);
  return 2 * (attention + ffn) * config.layers + 2 * d * config.vocab;
}

// How many tokens each part looks at.
struct TokenCounts {
  uint64_t sample, metric, divergence;
};

TokenCounts CountsFor(const ModelConfig& config, size_t boundaries, uint32_t asked) {
  const double work = WorkPerToken(config);
  const auto affordable = [](double each, uint64_t fewest, uint64_t most) {
    return std::clamp(static_cast<uint64_t>(kWork / each), fewest, most);
  };
  TokenCounts counts{
      .sample = affordable(work, kFewestTokens, kMostTokens),
      .metric = affordable(work * (2 + kDraws), kFewestMetricTokens, kMostMetricTokens),
      .divergence = affordable(work * static_cast<double>(boundaries + 1), kFewestDivergenceTokens,
                               kMostDivergenceTokens)};
  if (asked != 0) counts.sample = asked;
  const uint64_t row_bytes = sizeof(float) * config.d_model * uint64_t{config.layers + 1};
  counts.sample = std::min(counts.sample, std::max<uint64_t>(256, kScratchBytes / row_bytes));
  return counts;
}

std::string ScratchDir(const CalibrationOptions& options) {
  if (!options.scratch_dir.empty()) return options.scratch_dir;
  const char* set = std::getenv("TMPDIR");
  return set != nullptr && *set != '\0' ? set : "/tmp";
}

absl::StatusOr<std::vector<uint32_t>> BoundariesOf(const CalibrationOptions& options,
                                                   const ModelConfig& config) {
  std::vector<uint32_t> boundaries = options.boundaries;
  if (boundaries.empty()) {
    for (uint32_t i = 0; i <= config.layers; ++i) boundaries.push_back(i);
  }
  std::sort(boundaries.begin(), boundaries.end());
  boundaries.erase(std::unique(boundaries.begin(), boundaries.end()), boundaries.end());
  if (boundaries.back() <= config.layers) return boundaries;
  return absl::InvalidArgumentError(absl::StrCat("there is no boundary after ", boundaries.back(),
                                                 " layers: the model has ", config.layers));
}

// One calibration of boundaries that are known to be there.
class Calibrator {
 public:
  Calibrator(const ModelFile& file, const CalibrationOptions& options, const ModelConfig& config,
             std::vector<uint32_t> boundaries, Compute& compute)
      : file_(file),
        options_(options),
        config_(config),
        boundaries_(std::move(boundaries)),
        compute_(compute),
        counts_(CountsFor(config, boundaries_.size(), options.tokens)) {}

  absl::StatusOr<Calibration> Run() {
    const absl::Time start = absl::Now();
    RETURN_IF_ERROR(ReadText());
    RETURN_IF_ERROR(RunForward());
    RETURN_IF_ERROR(MakeBases());
    RETURN_IF_ERROR(Measure());
    result_.seconds = absl::ToDoubleSeconds(absl::Now() - start);
    for (std::shared_ptr<BoundaryBasis>& basis : bases_) result_.bases.push_back(std::move(basis));
    return std::move(result_);
  }

 private:
  uint32_t lowest() const { return boundaries_.front(); }

  absl::Status ReadText() {
    const absl::string_view text =
        options_.text.empty() ? CalibrationSample() : absl::string_view(options_.text);
    WindowLimits limits{.context = config_.context, .tokens = counts_.sample + counts_.divergence};
    if (options_.text.empty()) {
      WindowLimits taste = limits;
      taste.tokens_per_kind = kTasteTokens;
      ASSIGN_OR_RETURN(const TokenWindows windows, CutWindows(file_, text, taste));
      ASSIGN_OR_RETURN(limits.kinds,
                       FamiliarKinds(file_, config_, windows, compute_, options_.cancelled));
      ASSIGN_OR_RETURN(sample_, CutWindows(file_, text, limits));
    } else {
      ASSIGN_OR_RETURN(sample_, CalibrationWindows(file_, text, limits.context, limits.tokens));
    }
    held_ = TakeSome(sample_, counts_.divergence);
    result_.tokens = sample_.tokens();
    result_.divergence_tokens = held_.windows.empty() ? result_.tokens : held_.tokens();
    return absl::OkStatus();
  }

  // What crosses each boundary from the lowest on: rows of the sample, and behind them the others.
  absl::Status RunForward() {
    TokenWindows all = sample_;
    all.windows.insert(all.windows.end(), held_.windows.begin(), held_.windows.end());
    const uint32_t kept = config_.layers - lowest() + 1;
    ASSIGN_OR_RETURN(
        rows_, ScratchMatrices::Create(ScratchDir(options_), kept, all.tokens(), config_.d_model));
    return RunWindows(file_, config_, all, compute_, options_.cancelled,
                      [&](uint32_t boundary, ConstMatrixRef rows) {
                        Report(0.05, 0.15 * boundary / config_.layers, "running the text");
                        if (boundary < lowest()) return;
                        std::copy_n(rows.data, rows.rows * rows.cols, AllRows(boundary).data);
                      });
  }

  MatrixRef AllRows(uint32_t boundary) const { return rows_->at(boundary - lowest()); }
  ConstMatrixRef SampleRows(uint32_t boundary) const {
    const MatrixRef all = AllRows(boundary);
    return {all.data, result_.tokens, all.cols};
  }
  // Where no window could be spared, the sample's own.
  ConstMatrixRef HeldRows(uint32_t boundary) const {
    const MatrixRef all = AllRows(boundary);
    if (held_.windows.empty()) return all;
    return {all.row(result_.tokens), all.rows - result_.tokens, all.cols};
  }

  absl::Status MakeBases() {
    std::vector<uint32_t> lengths = sample_.lengths();
    size_t windows = 0;
    for (; windows < lengths.size() && result_.metric_tokens < counts_.metric; ++windows) {
      result_.metric_tokens += lengths[windows];
    }
    lengths.resize(windows);
    const auto inputs = [&](uint32_t boundary) {
      return ConstMatrixRef{SampleRows(boundary).data, result_.metric_tokens, config_.d_model};
    };
    const absl::Status status = VisitGradients(
        file_, config_, {lengths, inputs},
        {.lowest = lowest(), .draws = kDraws, .cancelled = options_.cancelled}, compute_,
        [&](uint32_t boundary, ConstMatrixRef gradients) {
          const double done = config_.layers + 1 - boundary;
          Report(0.2, 0.55 * done / (config_.layers + 1 - lowest()), "asking what matters");
          if (!Wants(boundary)) return absl::OkStatus();
          return AddSample(boundary, gradients);
        });
    if (absl::IsUnimplemented(status)) {
      spdlog::warn("calibration without a metric: {}", std::string(status.message()));
      result_.metric_tokens = 0;
      for (const uint32_t boundary : boundaries_) RETURN_IF_ERROR(AddSample(boundary, {}));
    } else {
      RETURN_IF_ERROR(status);
    }
    RETURN_IF_ERROR(BuildWaiting());
    std::sort(bases_.begin(), bases_.end(),
              [](const auto& a, const auto& b) { return a->boundary < b->boundary; });
    return absl::OkStatus();
  }

  bool Wants(uint32_t boundary) const {
    return std::binary_search(boundaries_.begin(), boundaries_.end(), boundary);
  }

  // gradients: [kDraws * metric tokens, d_model], or none.
  absl::Status AddSample(uint32_t boundary, ConstMatrixRef gradients) {
    BoundarySample sample;
    sample.boundary = boundary;
    const ConstMatrixRef rows = SampleRows(boundary);
    sample.rows = Matrix(rows.rows, rows.cols);
    std::copy_n(rows.data, rows.rows * rows.cols, sample.rows.row(0));
    if (gradients.rows > 0) {
      const RowNormalizer normalizer = RowNormalizer::Fit(rows);
      GramAccumulator fisher(rows.cols, *compute_.team);
      Matrix scaled(gradients.rows / kDraws, rows.cols);
      for (uint32_t draw = 0; draw < kDraws; ++draw) {
        for (size_t row = 0; row < scaled.rows(); ++row) {
          const float scale = normalizer.Scale({rows.row(row), rows.cols});
          const float* gradient = gradients.row(draw * scaled.rows() + row);
          for (size_t i = 0; i < rows.cols; ++i) scaled.row(row)[i] = scale * gradient[i];
        }
        fisher.Add(scaled.ref());
      }
      sample.fisher = fisher.Mean();
    }
    waiting_.push_back(std::move(sample));
    const int together = std::max(1, compute_.team->threads());
    return waiting_.size() < static_cast<size_t>(together) ? absl::OkStatus() : BuildWaiting();
  }

  // Each basis takes a thread.
  absl::Status BuildWaiting() {
    if (options_.cancelled && options_.cancelled()) {
      return absl::CancelledError("the calibration was cancelled");
    }
    std::vector<absl::StatusOr<BoundaryBasis>> built(waiting_.size(), absl::UnknownError(""));
    compute_.team->ParallelFor(waiting_.size(),
                               [&](size_t i) { built[i] = BuildBasis(waiting_[i]); });
    waiting_.clear();
    for (absl::StatusOr<BoundaryBasis>& basis : built) {
      RETURN_IF_ERROR(basis.status());
      bases_.push_back(std::make_shared<BoundaryBasis>(*std::move(basis)));
    }
    return absl::OkStatus();
  }

  absl::Status Measure() {
    const TokenWindows& windows = held_.windows.empty() ? sample_ : held_;
    const auto rows = [&](uint32_t boundary) { return HeldRows(boundary); };
    return MeasureDivergence(
        file_, config_, {windows.lengths(), windows.kinds, rows}, ScratchDir(options_), bases_,
        compute_, options_.cancelled,
        [&](double share) { Report(0.75, 0.25 * share, "measuring what coding costs"); });
  }

  void Report(double before, double share, absl::string_view what) const {
    if (options_.progress) options_.progress(before + share, what);
  }

  const ModelFile& file_;
  const CalibrationOptions& options_;
  const ModelConfig& config_;
  const std::vector<uint32_t> boundaries_;
  Compute& compute_;
  const TokenCounts counts_;

  TokenWindows sample_, held_;
  std::optional<ScratchMatrices> rows_;
  std::vector<BoundarySample> waiting_;
  std::vector<std::shared_ptr<BoundaryBasis>> bases_;
  Calibration result_;
};

absl::StatusOr<Calibration> Calibrate(const ModelFile& file, const CalibrationOptions& options) {
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(file));
  RETURN_IF_ERROR(CheckModelTensors(config, file));
  ASSIGN_OR_RETURN(std::vector<uint32_t> boundaries, BoundariesOf(options, config));
  const int threads = options.threads == 0 ? AvailableCpus() : options.threads;
  ASSIGN_OR_RETURN(Compute compute, Compute::Create(threads, options.kernels));
  return Calibrator(file, options, config, std::move(boundaries), compute).Run();
}

}  // namespace

absl::StatusOr<Calibration> CalibrateBoundaries(const ModelFile& file,
                                                const CalibrationOptions& options) {
  if (!options.low_priority) return Calibrate(file, options);
  // Who gives way can't take it back: a thread that ends with the work. Those that it makes are
  // like it.
  absl::StatusOr<Calibration> result = absl::UnknownError("");
  std::thread([&] {
    if (setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 19) != 0) {
      spdlog::warn("the calibration runs at normal priority");
    }
    result = Calibrate(file, options);
  }).join();
  return result;
}

Sha256Digest CalibrationDigest(const CalibrationOptions& options) {
  const absl::string_view text =
      options.text.empty() ? CalibrationSample() : absl::string_view(options.text);
  const std::string facts =
      absl::StrCat("efedllm calibration ", kCalibrationVersion, ", ", options.tokens, "\n", text);
  return Sha256({reinterpret_cast<const uint8_t*>(facts.data()), facts.size()});
}

absl::StatusOr<Calibration> LoadCalibration(const ModelFile& file,
                                            const CalibrationOptions& options,
                                            const BasisStore& store) {
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(file));
  ASSIGN_OR_RETURN(const std::vector<uint32_t> boundaries, BoundariesOf(options, config));
  BasisKey key{.model = ModelDigest(file), .calibration = CalibrationDigest(options)};
  std::optional<Sha256Digest> chosen;
  if (options.text.empty()) chosen = store.Chosen(key.model);
  Calibration result;
  for (const uint32_t boundary : boundaries) {
    key.boundary = boundary;
    std::shared_ptr<const BoundaryBasis> basis;
    if (chosen) basis = store.Get({key.model, *chosen, boundary}, config.d_model);
    if (basis == nullptr) basis = store.Get(key, config.d_model);
    if (basis == nullptr) continue;
    result.bases.push_back(std::move(basis));
    ++result.from_store;
  }
  return result;
}

absl::StatusOr<Calibration> LoadOrCalibrate(const ModelFile& file,
                                            const CalibrationOptions& options,
                                            const BasisStore& store) {
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(file));
  ASSIGN_OR_RETURN(const std::vector<uint32_t> boundaries, BoundariesOf(options, config));
  ASSIGN_OR_RETURN(Calibration stored, LoadCalibration(file, options, store));
  CalibrationOptions missing = options;
  missing.boundaries.clear();
  for (const uint32_t boundary : boundaries) {
    const auto is_it = [boundary](const auto& basis) { return basis->boundary == boundary; };
    if (std::none_of(stored.bases.begin(), stored.bases.end(), is_it)) {
      missing.boundaries.push_back(boundary);
    }
  }
  if (missing.boundaries.empty()) return stored;
  ASSIGN_OR_RETURN(Calibration result, CalibrateBoundaries(file, missing));
  BasisKey key{.model = ModelDigest(file), .calibration = CalibrationDigest(options)};
  for (const std::shared_ptr<const BoundaryBasis>& basis : result.bases) {
    key.boundary = basis->boundary;
    if (const absl::Status kept = store.Put(key, *basis); !kept.ok()) {
      spdlog::warn("bases are not kept: {}", std::string(kept.message()));
    }
  }
  result.from_store = stored.from_store;
  result.bases.insert(result.bases.end(), stored.bases.begin(), stored.bases.end());
  std::sort(result.bases.begin(), result.bases.end(),
            [](const auto& a, const auto& b) { return a->boundary < b->boundary; });
  return result;
}

}  // namespace efedllm
