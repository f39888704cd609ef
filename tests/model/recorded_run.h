// A chain of stages that lives as in a cluster (batches, chunks, forks, speculation taken back),
// and what went into each stage and came out, position by position.
#ifndef EFEDLLM_TESTS_MODEL_RECORDED_RUN_H_
#define EFEDLLM_TESTS_MODEL_RECORDED_RUN_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "common/random.h"
#include "model/stage_executor.h"
#include "model/stage_replay.h"

namespace efedllm {

class RecordedRun {
 public:
  using Row = std::vector<float>;
  // Of a sequence: by position.
  struct Rows {
    std::vector<Row> inputs, outputs;
  };

  RecordedRun(const ModelConfig& config, const StageReplay::LayerSource& source, KvType kv_type,
              std::vector<LayerRange> stages, Compute& compute)
      : config_(config), ranges_(std::move(stages)), records_(ranges_.size()) {
    for (const LayerRange layers : ranges_) {
      StageOptions options;
      options.config = config;
      options.layers = layers;
      options.kv_tokens = 4096;
      options.kv_type = kv_type;
      options.limits.max_position = config.context;
      stages_.push_back(*StageExecutor::Create(options, *source(layers), compute));
    }
  }

  // Steps of up to four sequences, of which some fork, some go back, and some end and are kept.
  void Live(Random& random, int steps) {
    for (int i = 0; i < steps; ++i) {
      Step step;
      const auto at_most = static_cast<uint32_t>(random.Below(3) == 0 ? 40 : 3);
      for (uint64_t s = 1; s <= 4; ++s) {
        const SequenceId sequence{s};
        uint32_t length = Length(sequence);
        if (length == 0 && s == 4 && Length(SequenceId{1}) > 0) {
          length = 1 + static_cast<uint32_t>(random.Below(Length(SequenceId{1})));
          step.forks.push_back({sequence, SequenceId{1}, length});
        } else if (length > 2 && random.Below(4) == 0) {
          length -= 1 + static_cast<uint32_t>(random.Below(2));  // guesses that were wrong
        }
        const uint32_t tokens = 1 + static_cast<uint32_t>(random.Below(at_most));
        if (length + tokens <= config_.context &&
            (random.Below(4) != 0 || length < Length(sequence)))
          step.spans.push_back({sequence, length, tokens});
        else if (!step.forks.empty() && step.forks.back().sequence == sequence)
          step.forks.pop_back();
      }
      Run(step, random);
    }
  }

  size_t stages() const { return ranges_.size(); }
  LayerRange layers(size_t stage) const { return ranges_[stage]; }
  const std::map<SequenceId, Rows>& records(size_t stage) const { return records_[stage]; }

 private:
  uint32_t Length(SequenceId sequence) {
    return static_cast<uint32_t>(records_[0][sequence].inputs.size());
  }

  void Run(const Step& step, Random& random) {
    Matrix hidden(step.tokens(), config_.d_model);
    for (float& value : hidden.ref().span()) value = static_cast<float>(random.Uniform() * 2 - 1);
    for (size_t i = 0; i < stages_.size(); ++i) {
      for (const SequenceFork& fork : step.forks) {
        Rows child = records_[i][fork.parent];
        child.inputs.resize(fork.tokens);
        child.outputs.resize(fork.tokens);
        records_[i][fork.sequence] = std::move(child);
      }
      Record(step, hidden, i, &Rows::inputs);
      const absl::Status ran = stages_[i]->Run(step, hidden.ref());
      ASSERT_TRUE(ran.ok()) << ran;
      Record(step, hidden, i, &Rows::outputs);
    }
  }

  void Record(const Step& step, Matrix& hidden, size_t stage, std::vector<Row> Rows::*which) {
    size_t row = 0;
    for (const SequenceSpan& span : step.spans) {
      std::vector<Row>& rows = records_[stage][span.sequence].*which;
      rows.resize(span.first_position);
      for (uint32_t i = 0; i < span.tokens; ++i, ++row) {
        rows.emplace_back(hidden.row(row), hidden.row(row) + hidden.cols());
      }
    }
  }

  const ModelConfig config_;
  const std::vector<LayerRange> ranges_;
  std::vector<std::unique_ptr<StageExecutor>> stages_;
  std::vector<std::map<SequenceId, Rows>> records_;  // of each stage
};

// Random cuts: 1 to `layers` stages.
inline std::vector<LayerRange> RandomStages(Random& random, uint32_t layers) {
  std::vector<LayerRange> stages;
  for (uint32_t first = 0; first < layers;) {
    const uint32_t last = first + 1 + static_cast<uint32_t>(random.Below(layers - first));
    stages.push_back({first, last});
    first = last;
  }
  return stages;
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_MODEL_RECORDED_RUN_H_
