#include "app/coded_model_choice.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "app/coord_options.h"
#include "app/daemon.h"
#include "app/progress_line.h"
#include "common/status_macros.h"
#include "coordinator/basis_store.h"
#include "coordinator/boundary_calibration.h"

namespace efedllm {
namespace {

std::optional<BoundaryCoding> CodingFromName(absl::string_view name) {
  if (name.size() == 4 && absl::StartsWith(name, "int") && name[3] >= '2' && name[3] <= '7') {
    return BoundaryCoding{{CodecId::kInt8, 0}, static_cast<uint32_t>(name[3] - '0')};
  }
  const size_t colon = name.find(':');
  const std::optional<CodecId> id = CodecFromName(name.substr(0, colon));
  if (!id) return std::nullopt;
  CodecSetting setting{*id, 0};
  if (setting.needs_basis() != (colon != absl::string_view::npos)) return std::nullopt;
  if (setting.needs_basis()) {
    double step = 0;
    if (!absl::SimpleAtod(name.substr(colon + 1), &step) || !(step > 0) || !std::isfinite(step)) {
      return std::nullopt;
    }
    // The nearest of the grid: a step that was printed finds itself.
    setting.step = static_cast<uint8_t>(
        StepIndexBelow(static_cast<float>(step * std::exp2(0.5 / kStepsPerOctave))));
  }
  return BoundaryCoding{setting};
}

}  // namespace

absl::StatusOr<CodecChoice> CodecChoice::Parse(absl::string_view name) {
  if (const std::optional<CodecLevel> level = CodecLevelFromName(name)) {
    return CodecChoice(*level == CodecLevel::kAuto ? CodecLevel::kTransparent : *level);
  }
  if (const std::optional<BoundaryCoding> coding = CodingFromName(name)) {
    return CodecChoice(*coding);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--codec: \"", name, "\" is unknown: use ", kCodecNames));
}

bool CodecChoice::needs_bases() const {
  if (const auto* level = std::get_if<CodecLevel>(&choice_)) return *level != CodecLevel::kLossless;
  const auto& coding = std::get<BoundaryCoding>(choice_);
  return coding.block_bits == 0 && coding.setting.needs_basis();
}

BoundaryCoding CodecChoice::For(const BoundaryBasis* basis, size_t d_model,
                                size_t boundaries) const {
  if (const auto* coding = std::get_if<BoundaryCoding>(&choice_)) return *coding;
  EdgeFacts facts;
  facts.d_model = d_model;
  facts.hops = boundaries;
  facts.basis = basis;
  return {ChooseCodec({std::get<CodecLevel>(choice_), std::nullopt}, facts)};
}

std::vector<std::optional<BoundaryCoding>> CodecChoice::ForAll(const CodedModel& model,
                                                               size_t d_model) const {
  std::vector<std::optional<BoundaryCoding>> codings;
  const size_t boundaries = model.boundaries().size();
  codings.reserve(boundaries);
  for (size_t i = 0; i < boundaries; ++i) {
    codings.emplace_back(For(model.basis(i), d_model, boundaries));
  }
  return codings;
}

absl::StatusOr<BoundaryBases> FindBases(const ModelFile& file, std::vector<uint32_t> boundaries,
                                        const LocalFlags& flags, std::string state_dir) {
  if (state_dir.empty()) {
    ASSIGN_OR_RETURN(state_dir, DefaultStateDir(ThisUser(), kCoordinatorState));
  }
  const ProgressLine progress;
  CalibrationOptions options;
  options.boundaries = std::move(boundaries);
  options.threads = flags.threads;
  options.kernels = flags.kernels;
  options.progress = [&progress](double share, absl::string_view what) {
    progress.Show(share, absl::StrCat("calibrating: ", what));
  };
  ASSIGN_OR_RETURN(Calibration calibration,
                   LoadOrCalibrate(file, options, BasisStore(BasisFolder(state_dir))));
  return std::move(calibration.bases);
}

}  // namespace efedllm
