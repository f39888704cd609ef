// Bases on disk, a file for each: <folder>/<model>-<calibration>-<boundary>.basis, where model and
// calibration are the first 16 hex digits of their digests.
//
//   0   char[8]  "eFedLLMb"
//   8   u32      1, the version of this header
//   12  u32      boundary
//   16  u8[32]   digest of the model
//   48  u8[32]   digest of the calibration
//   80  u8[32]   SHA-256 of what follows
//   112          BoundaryBasis::Serialize()
//
// Little-endian. <folder>/<model>.chosen is the digest in hex of the calibration that the operator
// chose for a model (efedllm-ctl codec calibrate --text).
#ifndef EFEDLLM_COORDINATOR_BASIS_STORE_H_
#define EFEDLLM_COORDINATOR_BASIS_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "common/sha256.h"
#include "model/model_file.h"
#include "svd/boundary_basis.h"

namespace efedllm {

// What a model is known by here: its files' headers and a sample of each tensor's bytes. Reads a
// few MB at most.
Sha256Digest ModelDigest(const ModelFile& file);

struct BasisKey {
  Sha256Digest model{};
  Sha256Digest calibration{};  // of the text, and whatever else decides the result
  uint32_t boundary = 0;
};

// Thread-safe; processes may share the folder.
class BasisStore {
 public:
  // folder: made at the first Put.
  explicit BasisStore(std::string folder) : folder_(std::move(folder)) {}

  const std::string& folder() const { return folder_; }

  // Null: there is none, or the file is damaged or foreign, which is a warning.
  std::shared_ptr<const BoundaryBasis> Get(const BasisKey& key, uint32_t d_model) const;
  // There in full or not at all.
  absl::Status Put(const BasisKey& key, const BoundaryBasis& basis) const;
  // Removes the bases of all boundaries.
  absl::Status Forget(const Sha256Digest& model, const Sha256Digest& calibration) const;

  // What the operator chose for this model; nullopt: nothing, so the built-in sample's.
  std::optional<Sha256Digest> Chosen(const Sha256Digest& model) const;
  absl::Status Choose(const Sha256Digest& model, std::optional<Sha256Digest> calibration) const;

 private:
  std::string Path(const BasisKey& key) const;
  std::string ChosenPath(const Sha256Digest& model) const;

  const std::string folder_;
};

// <state_dir>/bases.
std::string BasisFolder(const std::string& state_dir);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_BASIS_STORE_H_
