#include "coordinator/basis_keeper.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_join.h"
#include "coordinator/boundary_calibration.h"

namespace efedllm {

BasisKeeper::BasisKeeper(const ModelFile& file, const std::string& state_dir,
                         std::function<void(const Bases&)> on_bases)
    : file_(file), store_(BasisFolder(state_dir)), on_bases_(std::move(on_bases)) {
  thread_ = std::thread([this] { Loop(); });
}

BasisKeeper::~BasisKeeper() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void BasisKeeper::Want(const std::vector<uint32_t>& boundaries) {
  absl::MutexLock lock(&mu_);
  for (const uint32_t boundary : boundaries) {
    if (known_.insert(boundary).second) wanted_.push_back(boundary);
  }
}

void BasisKeeper::Loop() {
  while (true) {
    std::vector<uint32_t> boundaries;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &BasisKeeper::HasWork));
      if (stopping_) return;
      boundaries = std::move(wanted_);
      wanted_.clear();
    }
    Get(boundaries);
  }
}

void BasisKeeper::Get(const std::vector<uint32_t>& boundaries) {
  CalibrationOptions options;
  options.boundaries = boundaries;
  options.threads = 1;
  options.low_priority = true;
  options.cancelled = [this] {
    absl::MutexLock lock(&mu_);
    return stopping_;
  };
  const absl::StatusOr<Calibration> calibration = LoadOrCalibrate(file_, options, store_);
  if (absl::IsCancelled(calibration.status())) return;
  if (!calibration.ok()) {
    spdlog::warn("no bases for boundaries {}: {}; edges there are coded as int8",
                 absl::StrJoin(boundaries, ", "), std::string(calibration.status().message()));
    return;
  }
  if (calibration->from_store < boundaries.size()) {
    spdlog::info("boundaries {} are calibrated on {} tokens, in {:.0f} s",
                 absl::StrJoin(boundaries, ", "), calibration->tokens, calibration->seconds);
  }
  on_bases_(calibration->bases);
}

}  // namespace efedllm
