// The model of the simulation: six layers of width 32, made up from a fixed seed, and what it says
// to each of a few prompts when nothing goes wrong.
#ifndef EFEDLLM_FAULTSIM_TINY_MODEL_H_
#define EFEDLLM_FAULTSIM_TINY_MODEL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster/layer_cost.h"
#include "cluster/stage_plan.h"
#include "cluster/step.h"
#include "coordinator/generation.h"
#include "coordinator/served_model.h"
#include "layers/compute.h"
#include "model/stage_executor.h"
#include "model/tensor_loader.h"

namespace efedllm::faultsim {

// Loaded once per process; used by one world at a time.
class TinyModel {
 public:
  static constexpr uint32_t kLayers = 6;
  static constexpr uint32_t kContext = 256;

  // Writes the model's file into dir, which exists, and loads it.
  static absl::StatusOr<std::unique_ptr<TinyModel>> Create(const std::string& dir);

  ServedModel& served() { return *served_; }
  const ModelConfig& config() const { return served_->config; }
  Compute& compute() { return compute_; }  // inline, on the caller's thread
  StepLimits limits() const;
  const std::vector<LayerCost>& costs() const { return costs_; }
  // Weights of the layers; packed once.
  const std::vector<StageTensor>& Tensors(LayerRange layers);

  // The requests that clients make, less what differs from time to time (deadline, priority). Some
  // begin alike, some are sampled, some are longer than a KV page.
  size_t questions() const { return questions_.size(); }
  const GenerationInput& Question(size_t index) const { return questions_[index]; }
  // What the plain executor answers.
  const std::vector<int32_t>& Answer(size_t index);

 private:
  TinyModel() = default;
  void MakeQuestions();
  std::vector<int32_t> ComputeAnswer(const GenerationInput& input);

  Compute compute_;
  std::unique_ptr<ServedModel> served_;
  std::vector<LayerCost> costs_;
  std::map<uint64_t, std::vector<StageTensor>> tensors_;  // by first << 32 | last
  std::vector<GenerationInput> questions_;
  std::map<size_t, std::vector<int32_t>> answers_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_TINY_MODEL_H_
