// A worker whose epochs follow each other, and what its steps must give.
#ifndef EFEDLLM_TESTS_WORKER_EPOCHS_WORLD_H_
#define EFEDLLM_TESTS_WORKER_EPOCHS_WORLD_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "model/stage_executor.h"
#include "model/tensor_loader.h"
#include "worker/worker_world.h"

namespace efedllm {

inline constexpr SequenceId kSequence{1};

class EpochsWorld : public WorkerWorld {
 protected:
  Assignment Next(uint64_t epoch, uint64_t continues, LayerRange layers = {0, 2}) const {
    Assignment assignment = coordinator_.MakeAssignment(Epoch{epoch}, layers);
    assignment.continues = Epoch{continues};
    return assignment;
  }
  std::optional<StepFrame> Run(HopSender& hop, const Step& step) {
    EXPECT_TRUE(SendStep(hop, step).ok());
    return coordinator_.AwaitStep(limits());
  }
  std::shared_ptr<StageExecutor> Reference(const Assignment& assignment) {
    const ModelFile file = *ModelFile::Parse(BytesOf(TinyModel()));
    return *StageExecutor::Create({.config = assignment.config,
                                   .layers = assignment.layers,
                                   .kv_tokens = assignment.kv_tokens,
                                   .limits = assignment.limits},
                                  *LoadStageTensors(assignment.config, file, assignment.layers),
                                  compute_);
  }
  // The row behind the rows [0, 3) and [3, 4) of a sequence.
  Matrix FifthRow() {
    const auto executor = Reference(Next(1, 0));
    Matrix hidden = SomeHidden(3);
    EXPECT_TRUE(executor->Run(OneStep(1, 1, {{kSequence, 0, 3}}), hidden.ref()).ok());
    for (uint32_t position = 3; position < 5; ++position) {
      hidden = SomeHidden(1);
      EXPECT_TRUE(executor->Run(OneStep(1, 2, {{kSequence, position, 1}}), hidden.ref()).ok());
    }
    return hidden;
  }
  void RunFourPositions(HopSender& hop, uint64_t epoch) {
    ASSERT_TRUE(Run(hop, OneStep(epoch, 1, {{kSequence, 0, 3}})));
    ASSERT_TRUE(Run(hop, OneStep(epoch, 2, {{kSequence, 3, 1}})));
  }
  void ExpectFifthRow(const std::optional<StepFrame>& result) {
    ASSERT_TRUE(result);
    ASSERT_TRUE(result->failure.ok()) << result->failure;
    EXPECT_THAT(result->hidden.ref().span(), ::testing::ElementsAreArray(FifthRow().ref().span()));
  }

  Compute compute_ = *Compute::Create(0, "scalar");
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_WORKER_EPOCHS_WORLD_H_
