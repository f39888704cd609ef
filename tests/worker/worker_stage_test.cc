// A worker's stage: fetching it, running steps, and what a coordinator or a peer can do to it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "model/stage_executor.h"
#include "testing/plain_frame.h"
#include "worker/worker_world.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

using WorkerStageTest = WorkerWorld;

TEST_F(WorkerStageTest, FetchesItsTensorsAndIsReadyAfterTheSelfTest) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  const Assignment assignment = coordinator_.MakeAssignment(Epoch{1}, {0, 1});
  coordinator_.Assign(assignment);
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{1}, StageState::kReady);
  ASSERT_TRUE(ready);
  uint64_t total = 0;
  uint64_t chunks = 0;
  for (const TensorSpec& tensor : assignment.tensors) {
    total += tensor.bytes();
    chunks += tensor.chunk_count();
  }
  EXPECT_EQ(ready->bytes_total, total);
  EXPECT_EQ(ready->bytes_held, total);
  EXPECT_EQ(ready->bytes_fetched, total);
  EXPECT_EQ(coordinator_.chunks_sent(), chunks);
}

TEST_F(WorkerStageTest, ARestartFetchesNothing) {
  ReadyWorker(Epoch{1}).reset();
  const uint64_t sent = coordinator_.chunks_sent();
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached(2));
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{2}, {0, 2}));
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{2}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_EQ(ready->bytes_fetched, 0u);
  EXPECT_EQ(coordinator_.chunks_sent(), sent);
}

TEST_F(WorkerStageTest, ACorruptedChunkIsFetchedAgain) {
  coordinator_.SetFaults({.corrupt_chunks = 2});
  const auto worker = ReadyWorker(Epoch{1});
  const Assignment assignment = coordinator_.MakeAssignment(Epoch{1}, {0, 2});
  uint64_t chunks = 0;
  for (const TensorSpec& tensor : assignment.tensors) chunks += tensor.chunk_count();
  EXPECT_GE(coordinator_.chunks_sent(), chunks + 2);
}

TEST_F(WorkerStageTest, AChunkThatIsAlwaysDamagedFailsTheStage) {
  coordinator_.SetFaults({.corrupt_chunks = 1 << 30});
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{1}, {0, 2}));
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{1}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_THAT(failed->message, HasSubstr("damaged"));
  // It lives on, and the next assignment works.
  coordinator_.SetFaults({});
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{2}, {0, 2}));
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{2}, StageState::kReady));
}

TEST_F(WorkerStageTest, AnInterruptedFetchGoesOnWhereItWas) {
  const Assignment assignment = coordinator_.MakeAssignment(Epoch{1}, {0, 2});
  uint64_t chunks = 0;
  for (const TensorSpec& tensor : assignment.tensors) chunks += tensor.chunk_count();
  coordinator_.SetFaults({.break_after_chunks = 8});
  {
    const auto worker = StartWorker();
    ASSERT_TRUE(coordinator_.AwaitAttached());
    coordinator_.Assign(assignment);
    ASSERT_TRUE(coordinator_.AwaitReport(Epoch{1}, StageState::kFailed));
  }
  const uint64_t before = coordinator_.chunks_sent();
  EXPECT_EQ(before, 8u);
  coordinator_.SetFaults({});
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached(2));
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{2}, {0, 2}));
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{2}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_EQ(coordinator_.chunks_sent(), chunks);
  EXPECT_LT(ready->bytes_fetched, ready->bytes_total);
}

TEST_F(WorkerStageTest, ANewAssignmentCancelsTheFetchUnderWay) {
  coordinator_.SetFaults({.chunk_delay = absl::Seconds(2)});
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{1}, {0, 1}));
  ASSERT_TRUE(coordinator_.AwaitReport(Epoch{1}, StageState::kFetching));
  coordinator_.SetFaults({});
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{2}, {1, 2}));
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{2}, StageState::kReady));
}

TEST_F(WorkerStageTest, AStageBeyondItsMemoryFailsWithTheNumbers) {
  WorkerOptions options = Options(coordinator_, state_.path());
  options.profile->memory_bytes = 1 << 20;
  const auto worker = StartWorker(options);
  ASSERT_TRUE(coordinator_.AwaitAttached());
  Assignment assignment = coordinator_.MakeAssignment(Epoch{1}, {0, 2});
  coordinator_.Assign(assignment);
  std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{1}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_THAT(failed->message, HasSubstr("offers 1.0 MiB"));
  assignment.epoch = Epoch{2};
  assignment.kv_tokens = uint64_t{1} << 40;
  coordinator_.Assign(assignment);
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{2}, StageState::kFailed));
  EXPECT_EQ(coordinator_.fetches(), 0);
}

TEST_F(WorkerStageTest, AMalformedAssignmentFailsAndTheWorkerLivesOn) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  v1::CoordinatorMessage message;
  *message.mutable_assignment() = ToWire(coordinator_.MakeAssignment(Epoch{1}, {0, 2}));
  message.mutable_assignment()->mutable_model()->set_d_model(UINT32_MAX);
  coordinator_.Send(message);
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{1}, StageState::kFailed));
  Assignment missing = coordinator_.MakeAssignment(Epoch{2}, {0, 2});
  missing.tensors.pop_back();
  coordinator_.Assign(missing);
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{2}, StageState::kFailed));
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{3}, {0, 2}));
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{3}, StageState::kReady));
}

TEST_F(WorkerStageTest, RunsStepsAsTheExecutorDoesBitForBit) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  const Assignment assignment = coordinator_.MakeAssignment(Epoch{1}, {0, 2});
  const ModelFile file = *ModelFile::Parse(BytesOf(TinyModel()));
  Compute compute = *Compute::Create(0, "scalar");
  const auto tensors = *LoadStageTensors(assignment.config, file, {0, 2});
  const auto reference = *StageExecutor::Create({.config = assignment.config,
                                                 .layers = {0, 2},
                                                 .kv_tokens = 512,
                                                 .limits = assignment.limits},
                                                tensors, compute);
  const std::vector<Step> steps = {OneStep(1, 1, {{SequenceId{1}, 0, 3}, {SequenceId{2}, 0, 5}}),
                                   OneStep(1, 2, {{SequenceId{1}, 3, 1}, {SequenceId{2}, 5, 1}})};
  for (const Step& step : steps) ASSERT_TRUE(SendStep(*hop, step).ok());
  for (const Step& step : steps) {
    const std::optional<StepFrame> result = coordinator_.AwaitStep(limits());
    ASSERT_TRUE(result);
    EXPECT_EQ(result->step.id, step.id);
    Matrix expected = SomeHidden(step.tokens());
    ASSERT_TRUE(reference->Run(step, expected.ref()).ok());
    EXPECT_THAT(result->hidden.ref().span(), ::testing::ElementsAreArray(expected.ref().span()));
  }
  EXPECT_TRUE(coordinator_.AwaitMessage([](const v1::WorkerMessage& message) {
    const v1::Heartbeat& beat = message.heartbeat();
    return beat.epoch() == 1 && beat.steps() == 2 && beat.tokens() == 10 && beat.sequences() == 2 &&
           beat.kv_tokens_used() > 0 && beat.bytes_in() > 0 && beat.bytes_out() > 0;
  }));
}

TEST_F(WorkerStageTest, StepsKeepTheirOrderWhileSeveralAreInTheNode) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  constexpr uint32_t kSteps = 40;
  std::thread sender([&] {
    for (uint32_t i = 0; i < kSteps; ++i) {
      EXPECT_TRUE(SendStep(*hop, OneStep(1, i + 1, {{SequenceId{1}, i, 1}})).ok());
    }
  });
  for (uint32_t i = 0; i < kSteps; ++i) {
    const std::optional<StepFrame> result = coordinator_.AwaitStep(limits());
    ASSERT_TRUE(result);
    EXPECT_TRUE(result->failure.ok()) << result->failure;
    EXPECT_EQ(result->step.id, StepId{i + 1});
  }
  sender.join();
}

TEST_F(WorkerStageTest, AppendsWhatItTookToThoseOfTheStagesBefore) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  const Step step = OneStep(1, 1, {{SequenceId{1}, 0, 3}});
  const StageTiming before{NodeId(), 123, 1, 2, 3, 4};
  const absl::Time sent = absl::Now();
  ASSERT_TRUE(
      hop->Send(PlainStepToWire(step, SomeHidden(3).ref(), {before}), absl::Seconds(10)).ok());
  const std::optional<StepFrame> result = coordinator_.AwaitStep(limits());
  const absl::Time back = absl::Now();
  ASSERT_TRUE(result);
  ASSERT_EQ(result->timings.size(), 2u);
  EXPECT_EQ(result->timings[0], before);
  const StageTiming& own = result->timings[1];
  EXPECT_EQ(own.received_bytes, step.tokens() * coordinator_.config().d_model * sizeof(float));
  EXPECT_GE(own.received_micros, absl::ToUnixMicros(sent));
  EXPECT_GT(own.compute_micros, 0u);
  const int64_t left = own.received_micros + own.decode_micros + own.queue_micros +
                       own.compute_micros + own.encode_micros;
  EXPECT_LE(left, absl::ToUnixMicros(back));
}

TEST_F(WorkerStageTest, AnAssignmentAmidstStepsDropsTheOldStageAndRunsTheNew) {
  const auto worker = ReadyWorker(Epoch{1});
  uint64_t epoch = 1;
  std::vector<std::unique_ptr<HopSender>> hops;
  for (; epoch < 6; ++epoch) {
    hops.push_back(coordinator_.OpenHop());
    // Nobody takes the results: some are in the node's hands when the stage goes.
    for (uint32_t i = 0; i < 4; ++i) {
      ASSERT_TRUE(SendStep(*hops.back(), OneStep(epoch, i + 1, {{SequenceId{1}, i, 1}})).ok());
    }
    coordinator_.Assign(coordinator_.MakeAssignment(Epoch{epoch + 1}, {0, 2}));
    ASSERT_TRUE(coordinator_.AwaitReport(Epoch{epoch + 1}, StageState::kReady));
  }
  hops.push_back(coordinator_.OpenHop());
  ASSERT_TRUE(SendStep(*hops.back(), OneStep(epoch, 1, {{SequenceId{1}, 0, 1}})).ok());
  std::optional<StepFrame> result;
  do {
    result = coordinator_.AwaitStep(limits());
    ASSERT_TRUE(result);
  } while (result->step.epoch != Epoch{epoch});
  EXPECT_TRUE(result->failure.ok()) << result->failure;
}

TEST_F(WorkerStageTest, AStepThatCantRunIsAnsweredAndTheNextOneRuns) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  // Its KV does not begin at 0.
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 1, {{SequenceId{1}, 7, 1}})).ok());
  std::optional<StepFrame> result = coordinator_.AwaitStep(limits());
  ASSERT_TRUE(result);
  EXPECT_FALSE(result->failure.ok());
  EXPECT_EQ(result->failed_node, worker->node());
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 2, {{SequenceId{1}, 0, 1}})).ok());
  result = coordinator_.AwaitStep(limits());
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->failure.ok()) << result->failure;
}

TEST_F(WorkerStageTest, PassesAnEarlierStagesFailureOnAndReleases) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 1, {{SequenceId{1}, 0, 1}})).ok());
  ASSERT_TRUE(coordinator_.AwaitStep(limits()));
  Step failed = OneStep(1, 2, {{SequenceId{2}, 0, 1}});
  failed.trims = {{SequenceId{1}, 0}};
  ASSERT_TRUE(hop->Send(StepFailureToWire(failed, NodeId{77}, absl::ResourceExhaustedError("full")),
                        absl::Seconds(10))
                  .ok());
  const std::optional<StepFrame> result = coordinator_.AwaitStep(limits());
  ASSERT_TRUE(result);
  EXPECT_EQ(result->failure, absl::ResourceExhaustedError("full"));
  EXPECT_EQ(result->failed_node, NodeId{77});
  EXPECT_TRUE(coordinator_.AwaitMessage([](const v1::WorkerMessage& message) {
    return message.heartbeat().steps() == 2 && message.heartbeat().sequences() == 0;
  }));
}

TEST_F(WorkerStageTest, StepsOfAnotherEpochAreDropped) {
  const auto worker = ReadyWorker(Epoch{5});
  const auto hop = coordinator_.OpenHop();
  ASSERT_TRUE(SendStep(*hop, OneStep(4, 9, {{SequenceId{1}, 0, 1}})).ok());
  ASSERT_TRUE(SendStep(*hop, OneStep(5, 1, {{SequenceId{1}, 0, 1}})).ok());
  const std::optional<StepFrame> result = coordinator_.AwaitStep(limits());
  ASSERT_TRUE(result);
  EXPECT_EQ(result->step.epoch, Epoch{5});
  EXPECT_EQ(result->step.id, StepId{1});
}

TEST_F(WorkerStageTest, MalformedStepsFailTheStageAndNotTheWorker) {
  const auto worker = ReadyWorker(Epoch{1});
  const grpc::Slice garbage(std::string(3000, '\xee'));
  Matrix not_a_number = SomeHidden(1);
  not_a_number.row(0)[3] = std::numeric_limits<float>::quiet_NaN();
  const grpc::ByteBuffer frames[] = {
      grpc::ByteBuffer(&garbage, 1),
      PlainStepToWire(OneStep(2, 1, {{SequenceId{1}, 0, 1}}), not_a_number.ref()),
      PlainStepToWire(OneStep(3, 1, {{SequenceId{1}, 0, 900}}), SomeHidden(900).ref())};
  uint64_t epoch = 1;
  for (const grpc::ByteBuffer& frame : frames) {
    const auto hop = coordinator_.OpenHop();
    ASSERT_TRUE(hop->Send(frame, absl::Seconds(10)).ok());
    const std::optional<StageReport> failed =
        coordinator_.AwaitReport(Epoch{epoch}, StageState::kFailed);
    ASSERT_TRUE(failed);
    EXPECT_THAT(failed->message,
                ::testing::AnyOf(HasSubstr("malformed step"), HasSubstr("damaged")));
    EXPECT_EQ(failed->fault, StageFault::kUpstream);
    coordinator_.Assign(coordinator_.MakeAssignment(Epoch{++epoch}, {0, 2}));
    ASSERT_TRUE(coordinator_.AwaitReport(Epoch{epoch}, StageState::kReady));
  }
}

TEST_F(WorkerStageTest, AGapBetweenStepsFailsTheStage) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 1, {{SequenceId{1}, 0, 1}})).ok());
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 3, {{SequenceId{1}, 1, 1}})).ok());
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{1}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_THAT(failed->message, HasSubstr("step 3 came after step 1"));
}

TEST_F(WorkerStageTest, AReleasedStageTakesNoMoreSteps) {
  const auto worker = ReadyWorker(Epoch{1});
  coordinator_.Release(Epoch{1});
  EXPECT_TRUE(coordinator_.AwaitMessage([seen = false](const v1::WorkerMessage& message) mutable {
    seen = seen ||
           (message.has_stage_status() && message.stage_status().state() == v1::StageStatus::READY);
    return seen && message.has_heartbeat() && message.heartbeat().epoch() == 0;
  }));
}

}  // namespace
}  // namespace efedllm
