// A stage of a tiny model, and steps for it.
#ifndef EFEDLLM_TESTS_MODEL_STAGE_WORLD_H_
#define EFEDLLM_TESTS_MODEL_STAGE_WORLD_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/random.h"
#include "model/gguf_builder.h"
#include "model/stage_executor.h"

namespace efedllm {

// A tiny model and one stage of it, with room for two pages (128 positions).
struct StageWorld {
  explicit StageWorld(const TinyLlama& model = TinyLlama(), LayerRange layers = {0, 2})
      : bytes(model.Build()),
        file(*ModelFile::Parse(BytesOf(bytes))),
        compute(*Compute::Create(0, "auto")) {
    options.config = *ModelConfigFromFile(file);
    options.layers = layers;
    options.kv_tokens = 128;
    options.limits.max_tokens = 100;
    options.limits.max_spans = 3;
    options.limits.max_trims = 4;
    options.limits.max_position = 120;
    tensors = *LoadStageTensors(options.config, file, layers);
    executor = Create();
  }

  // A stage without KV, by `options`.
  std::unique_ptr<StageExecutor> Create() {
    return *StageExecutor::Create(options, tensors, compute);
  }

  // Activations that depend on sequence and position alone.
  Matrix Hidden(const Step& step) const {
    Matrix hidden(step.tokens(), options.config.d_model);
    size_t row = 0;
    for (const SequenceSpan& span : step.spans) {
      for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
        Random random(span.sequence.v * 1000 + span.first_position + i);
        for (size_t k = 0; k < hidden.cols(); ++k) {
          hidden.row(row)[k] = static_cast<float>(random.Uniform() - 0.5);
        }
      }
    }
    return hidden;
  }
  absl::Status Run(const Step& step) {
    Matrix hidden = Hidden(step);
    return executor->Run(step, hidden.ref());
  }
  // The last row of a step's output.
  std::vector<float> LastRow(const Step& step) {
    Matrix hidden = Hidden(step);
    EXPECT_TRUE(executor->Run(step, hidden.ref()).ok());
    const float* row = hidden.row(hidden.rows() - 1);
    return {row, row + hidden.cols()};
  }

  const std::string bytes;
  const ModelFile file;
  Compute compute;
  StageOptions options;
  std::vector<StageTensor> tensors;
  std::unique_ptr<StageExecutor> executor;
};

inline Step StepOf(std::vector<SequenceSpan> spans, std::vector<SequenceId> released = {}) {
  Step step;
  step.spans = std::move(spans);
  for (const SequenceId sequence : released) step.trims.push_back({sequence, 0});
  return step;
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_MODEL_STAGE_WORLD_H_
