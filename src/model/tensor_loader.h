// Weights from the model file, or from the cache of what was packed before, into the form that the
// kernels read.
#ifndef EFEDLLM_MODEL_TENSOR_LOADER_H_
#define EFEDLLM_MODEL_TENSOR_LOADER_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cluster/stage_plan.h"
#include "cluster/tensor_spec.h"
#include "common/thread_team.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/tensor_hasher.h"
#include "model/weight_cache.h"

namespace efedllm {

// One tensor of a stage with its weights.
struct StageTensor {
  TensorSpec spec;
  std::shared_ptr<const PackedTensor> data;
};

// Where weights may come from, and who brings them. All borrowed; all may be null.
struct TensorSources {
  WeightCache* cache = nullptr;    // asked for the tensors whose digests the hasher knows already
  TensorHasher* hasher = nullptr;  // needed with a cache
  ThreadTeam* team = nullptr;      // null: the caller's thread alone; idle meanwhile
};

// Tensors of the file (as StageTensors or HeadTensors gave them), in the order of specs: mapped
// from the cache where they are there and right, else packed into one piece of memory that they
// share. The file's pages are dropped as they are read, so that resident memory grows by the packed
// form and a few MB. A cache that fails is a warning. ResourceExhausted: there is no memory.
absl::StatusOr<std::vector<StageTensor>> LoadTensors(const ModelFile& file,
                                                     std::vector<TensorSpec> specs,
                                                     const TensorSources& sources);
// The same for all tensors of a stage.
absl::StatusOr<std::vector<StageTensor>> LoadStageTensors(const ModelConfig& config,
                                                          const ModelFile& file, LayerRange layers,
                                                          const TensorSources& sources = {});

// Hashes what is new, and writes it to the cache for the next start, from which what is not of
// these tensors is removed: minutes of disk for a large model, so it is for a thread of its own.
// stop: asked between tensors; true ends it early, which is no error. ResourceExhausted: it would
// take more than half of what is free on the disk; nothing is written then.
absl::Status KeepTensors(const std::vector<StageTensor>& tensors, WeightCache& cache,
                         TensorHasher& hasher, const std::function<bool()>& stop);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_TENSOR_LOADER_H_
