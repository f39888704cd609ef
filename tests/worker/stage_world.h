// Stages of a tiny model in slots, without network, threads and clock.
#ifndef EFEDLLM_TESTS_WORKER_STAGE_WORLD_H_
#define EFEDLLM_TESTS_WORKER_STAGE_WORLD_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "model/gguf_builder.h"
#include "model/model_file.h"
#include "model/tensor_loader.h"
#include "model/weights.h"
#include "testing/plain_frame.h"
#include "worker/stage_slots.h"

namespace efedllm {

inline constexpr NodeId kUpstream{7};

class StageWorld {
 public:
  StageWorld()
      : bytes_(TinyLlama{.layers = 4}.Build()),
        file_(*ModelFile::Parse(BytesOf(bytes_))),
        config_(*ModelConfigFromFile(file_)),
        compute_(*Compute::Create(0, "scalar")) {}

  Assignment MakeAssignment(uint64_t epoch, LayerRange layers = {0, 4},
                            uint64_t continues = 0) const {
    Assignment assignment;
    assignment.epoch = Epoch{epoch};
    assignment.layers = layers;
    assignment.config = config_;
    assignment.tensors = *StageTensors(config_, file_, layers);
    for (TensorSpec& spec : assignment.tensors) {
      spec.chunks = {Sha256(file_.FindTensor(spec.name)->bytes)};
    }
    assignment.kv_tokens = 512;
    assignment.limits = {.max_tokens = 64, .max_spans = 8, .max_position = config_.context};
    assignment.upstream = kUpstream;
    assignment.continues = Epoch{continues};
    assignment.keep_outputs = true;
    return assignment;
  }

  std::shared_ptr<StageExecutor> MakeExecutor(const Assignment& assignment) {
    return *StageExecutor::Create({.config = assignment.config,
                                   .layers = assignment.layers,
                                   .kv_tokens = assignment.kv_tokens,
                                   .kv_type = assignment.kv_type,
                                   .limits = assignment.limits,
                                   .keep_outputs = assignment.keep_outputs},
                                  *LoadStageTensors(config_, file_, assignment.layers), compute_);
  }

  // With an executor of its own, unless it can go on with what is in the slots.
  std::shared_ptr<HeldStage> MakeStage(const Assignment& assignment, const StageSlots& slots) {
    const bool kept = slots.CanContinue(assignment);
    return std::make_shared<HeldStage>(assignment, NodeId{9},
                                       kept ? nullptr : MakeExecutor(assignment), StageBases(),
                                       nullptr, clock_);
  }

  Matrix SomeHidden(size_t rows, size_t first_row = 0) const {
    Matrix hidden(rows, config_.d_model);
    for (size_t row = 0; row < rows; ++row) {
      for (size_t i = 0; i < hidden.cols(); ++i) {
        const size_t at = (row + first_row) * hidden.cols() + i;
        hidden.row(row)[i] = static_cast<float>(at * 31 % 97) / 48.5f - 1.0f;
      }
    }
    return hidden;
  }

  // The frame of this step from the upstream, with hidden of its positions.
  HopFrame Frame(const Step& step) const {
    const bool bare = step.spans.empty();
    return Frame(step, bare ? Matrix(0, config_.d_model)
                            : SomeHidden(step.tokens(), step.spans[0].first_position));
  }
  HopFrame Frame(const Step& step, const Matrix& hidden) const {
    return {kUpstream, clock_.Now(), PlainStepToWire(step, hidden.ref())};
  }

  // What the slots send on; nullopt: they drop the frame. A failure of the stage halts it.
  std::optional<StepFrame> Pass(StageSlots& slots, const HopFrame& hop,
                                absl::Status* why = nullptr) {
    const std::shared_ptr<HeldStage> stage = slots.StageOf(hop.peer, hop.bytes);
    if (stage == nullptr) return std::nullopt;
    PassingFrame pass;
    absl::Status status = stage->Read(hop, pass);
    if (status.ok() && !slots.Enter(stage)) return std::nullopt;
    if (status.ok()) status = stage->Compute(pass);
    if (why != nullptr) *why = status;
    if (!status.ok()) {
      slots.Halt(*stage);
      return std::nullopt;
    }
    StepFrame out;
    const absl::Status read =
        PlainStepFromWire(stage->Write(pass), stage->assignment().limits, config_.d_model, out);
    EXPECT_TRUE(read.ok()) << read;
    return out;
  }

  const ModelConfig& config() const { return config_; }
  const Clock& clock() const { return clock_; }

 private:
  const std::string bytes_;
  const ModelFile file_;
  const ModelConfig config_;
  Compute compute_;
  ManualClock clock_;
};

inline Step MakeStep(uint64_t epoch, uint64_t id, std::vector<SequenceSpan> spans) {
  Step step;
  step.epoch = Epoch{epoch};
  step.id = StepId{id};
  step.spans = std::move(spans);
  return step;
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_WORKER_STAGE_WORLD_H_
