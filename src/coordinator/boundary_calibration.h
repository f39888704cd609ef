// The bases of a model's boundaries (svd/boundary_basis.h), calibrated on a text: what stands
// between the layers, how much the predictions mind errors there, and what coding it costs.
#ifndef EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_H_
#define EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/sha256.h"
#include "coordinator/basis_store.h"
#include "model/model_file.h"
#include "svd/boundary_basis.h"

namespace efedllm {

// English chats, stories and prose, generated or in the public domain. A line that begins with
// "%%%" stands in front of each document and may name its kind, "family" or "family.kind"; a
// document that begins with "user: " or "system: " is a chat. Of the built-in sample a model is
// shown the families that it predicts well: small ones know few.
absl::string_view CalibrationSample();

struct CalibrationOptions {
  // After so many layers each: 0 (behind the embedding) to the model's layers (before the head).
  // Empty: all of them.
  std::vector<uint32_t> boundaries;
  std::string text;     // documents as CalibrationSample has them, or any text; empty: the sample
  uint32_t tokens = 0;  // of the text, that are looked at; 0: as many as the model's width asks for
  int threads = 0;      // that compute; 0: one per CPU
  std::string kernels = "auto";
  bool low_priority = false;  // computes in threads that give way to all others (nice 19)
  std::string scratch_dir;    // of a file without a name; empty: $TMPDIR or /tmp

  // All that may be needed from another thread: called by one thread at a time.
  std::function<void(double share, absl::string_view what)> progress;  // share: 0 to 1; may be null
  std::function<bool()> cancelled;  // asked a few times a second; may be null
};

struct Calibration {
  // In order of their boundaries.
  std::vector<std::shared_ptr<const BoundaryBasis>> bases;
  uint32_t from_store = 0;         // so many of them
  uint64_t tokens = 0;             // rows behind mean and spectrum; 0: all came from the store
  uint64_t metric_tokens = 0;      // behind the Fisher matrices; 0: the model allows none
  uint64_t divergence_tokens = 0;  // behind what coding costs
  double seconds = 0;
};

// Minutes for a model of a billion parameters, seconds for small ones. Streams the weights layer by
// layer: needs memory for one layer and the head, and disk for the activations. The same input
// gives the same bases on this machine. InvalidArgument: a boundary that the model hasn't, or too
// little text; Cancelled; others from the model and the disk.
absl::StatusOr<Calibration> CalibrateBoundaries(const ModelFile& file,
                                                const CalibrationOptions& options);

// What in the store belongs to this model and these options: computes nothing. Boundaries that are
// not there are left out. Without a text of their own options mean the calibration that the
// operator chose, and for boundaries that it lacks that of the built-in sample.
absl::StatusOr<Calibration> LoadCalibration(const ModelFile& file,
                                            const CalibrationOptions& options,
                                            const BasisStore& store);

// The same, and calibrates what is missing and keeps it. A store that can't be written is a
// warning.
absl::StatusOr<Calibration> LoadOrCalibrate(const ModelFile& file,
                                            const CalibrationOptions& options,
                                            const BasisStore& store);

// All that decides what a calibration gives for a boundary of a model: BasisKey::calibration.
Sha256Digest CalibrationDigest(const CalibrationOptions& options);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BOUNDARY_CALIBRATION_H_
