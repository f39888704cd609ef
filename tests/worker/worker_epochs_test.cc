// A worker between epochs: the prepared stage beside the one that runs, and whose fault it is when
// a stage fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "worker/epochs_world.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

using WorkerEpochsTest = EpochsWorld;

TEST_F(WorkerEpochsTest, TheStageRunsOnUntilTheFirstFrameOfTheNextEpoch) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  ASSERT_TRUE(Run(*hop, OneStep(1, 1, {{kSequence, 0, 3}})));
  coordinator_.Assign(Next(2, 1));
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{2}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_TRUE(ready->kept);
  const auto still = Run(*hop, OneStep(1, 2, {{kSequence, 3, 1}}));
  ASSERT_TRUE(still);
  EXPECT_EQ(still->step.epoch, Epoch{1});
  const auto next = coordinator_.OpenHop();
  Step first = OneStep(2, 1, {{kSequence, 4, 1}});
  first.trims = {{kSequence, 4}};
  first.forget_others = true;
  ExpectFifthRow(Run(*next, first));
  // The old epoch is over, whatever still comes of it.
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 3, {{kSequence, 5, 1}})).ok());
  const auto last = Run(*next, OneStep(2, 2, {{kSequence, 5, 1}}));
  ASSERT_TRUE(last);
  EXPECT_EQ(last->step.epoch, Epoch{2});
}

TEST_F(WorkerEpochsTest, AStageOfOtherLayersIsNotKept) {
  const auto worker = ReadyWorker(Epoch{1});
  coordinator_.Assign(Next(2, 1, {0, 1}));
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{2}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_FALSE(ready->kept);
}

TEST_F(WorkerEpochsTest, AHaltedStageIsAdopted) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  RunFourPositions(*hop, 1);
  const grpc::Slice garbage(std::string(3000, '\xee'));
  ASSERT_TRUE(hop->Send(grpc::ByteBuffer(&garbage, 1), absl::Seconds(10)).ok());
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{1}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->fault, StageFault::kUpstream);
  coordinator_.Assign(Next(2, 1));
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{2}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_TRUE(ready->kept);
  const auto next = coordinator_.OpenHop();
  ExpectFifthRow(Run(*next, OneStep(2, 1, {{kSequence, 4, 1}})));
}

TEST_F(WorkerEpochsTest, AStageThatFailsToComeUpLeavesTheRunningOneAlone) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  RunFourPositions(*hop, 1);
  Assignment broken = Next(2, 1, {0, 1});
  broken.tensors[1].chunks[0][0] ^= 1;
  coordinator_.Assign(broken);
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{2}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->fault, StageFault::kSelf);
  ExpectFifthRow(Run(*hop, OneStep(1, 3, {{kSequence, 4, 1}})));
}

TEST_F(WorkerEpochsTest, ADownstreamThatDoesNotAnswerFailsTheStageByItsFault) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  RunFourPositions(*hop, 1);
  Assignment assignment = Next(2, 1);
  assignment.downstream = NodeId{77};
  assignment.downstream_address = "127.0.0.1:1";
  coordinator_.Assign(assignment);
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{2}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->fault, StageFault::kDownstream);
  EXPECT_THAT(failed->message, HasSubstr("127.0.0.1:1"));
  // Nothing is lost by it.
  ExpectFifthRow(Run(*hop, OneStep(1, 3, {{kSequence, 4, 1}})));
}

TEST_F(WorkerEpochsTest, ADownstreamOfAnotherCaIsNone) {
  const auto worker = ReadyWorker(Epoch{1});
  const FakeCoordinator other(BytesOf(TinyModel()));
  Assignment assignment = Next(2, 1);
  assignment.downstream_address = other.address();
  coordinator_.Assign(assignment);
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{2}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->fault, StageFault::kDownstream);
}

TEST_F(WorkerEpochsTest, ADownstreamThatGoesIsReportedWithoutAnotherFrame) {
  FakeCoordinator coordinator(BytesOf(TinyModel()), 0, /*insecure=*/true);
  WorkerOptions options = Options(coordinator, state_.path());
  options.insecure = true;
  const auto worker = StartWorker(options);
  ASSERT_TRUE(coordinator.AwaitAttached());
  auto other = std::make_unique<FakeCoordinator>(BytesOf(TinyModel()), 0, /*insecure=*/true);
  Assignment assignment = coordinator.MakeAssignment(Epoch{1}, {0, 2});
  assignment.downstream_address = other->address();
  coordinator.Assign(assignment);
  ASSERT_TRUE(coordinator.AwaitReport(Epoch{1}, StageState::kReady));
  const auto hop = coordinator.OpenHop();
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 1, {{kSequence, 0, 3}})).ok());
  other.reset();
  const std::optional<StageReport> failed = coordinator.AwaitReport(Epoch{1}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->fault, StageFault::kDownstream);
}

TEST_F(WorkerEpochsTest, WhereBothDontFitTheRunningStageGoesFirst) {
  Assignment first = Next(1, 0);
  uint64_t weights = 0;
  for (const TensorSpec& tensor : first.tensors) weights += PackedBytes(tensor);
  const uint64_t per_token = StageKvBytesPerToken(first.config, first.kv_type, 2, false);
  WorkerOptions options = Options(coordinator_, state_.path());
  options.profile->memory_bytes = weights + per_token * first.kv_tokens * 3 / 2;
  const auto worker = StartWorker(options);
  ASSERT_TRUE(coordinator_.AwaitAttached());
  coordinator_.Assign(first);
  ASSERT_TRUE(coordinator_.AwaitReport(Epoch{1}, StageState::kReady));
  const auto hop = coordinator_.OpenHop();
  ASSERT_TRUE(Run(*hop, OneStep(1, 1, {{kSequence, 0, 3}})));
  Assignment next = Next(2, 0);  // begins anew: needs its own KV
  coordinator_.Assign(next);
  ASSERT_TRUE(coordinator_.AwaitReport(Epoch{2}, StageState::kReady));
  // What is sent for epoch 1 is dropped; epoch 2 runs.
  SendStep(*hop, OneStep(1, 2, {{kSequence, 3, 1}})).IgnoreError();
  const auto hop2 = coordinator_.OpenHop();
  const auto result = Run(*hop2, OneStep(2, 1, {{kSequence, 0, 3}}));
  ASSERT_TRUE(result);
  EXPECT_EQ(result->step.epoch, Epoch{2});
  EXPECT_TRUE(result->failure.ok());
}

TEST_F(WorkerEpochsTest, PrefetchedWeightsAreNotFetchedAgain) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  const Assignment assignment = Next(1, 0);
  uint64_t chunks = 0;
  for (const TensorSpec& tensor : assignment.tensors) chunks += tensor.chunk_count();
  coordinator_.SendPrefetch(assignment.tensors);
  const auto packed = [&] {
    const std::filesystem::directory_iterator files(state_.path() + "/weights");
    return std::count_if(begin(files), end(files),
                         [](const auto& file) { return file.path().extension() == ".packed"; });
  };
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (packed() < static_cast<int64_t>(assignment.tensors.size()) && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  coordinator_.Assign(assignment);
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{1}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_EQ(coordinator_.chunks_sent(), chunks);
}

TEST_F(WorkerEpochsTest, AnAssignmentCancelsAPrefetchAndWhatFailsThereFailsNothing) {
  coordinator_.SetFaults({.chunk_delay = absl::Milliseconds(500)});
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  Assignment assignment = Next(1, 0);
  std::vector<TensorSpec> unknown = assignment.tensors;
  for (TensorSpec& tensor : unknown) tensor.chunks[0][0] ^= 1;
  coordinator_.SendPrefetch(unknown);
  coordinator_.SendPrefetch(assignment.tensors);
  absl::SleepFor(absl::Milliseconds(100));
  coordinator_.SetFaults({});
  coordinator_.Assign(assignment);
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{1}, StageState::kReady));
}

TEST_F(WorkerEpochsTest, ADiskThatIsFullFailsTheStageAndNotTheWorker) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  // Files can't grow: what a full disk does to a write.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit none{.rlim_cur = 4096, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &none);
  coordinator_.Assign(Next(1, 0));
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{1}, StageState::kFailed);
  setrlimit(RLIMIT_FSIZE, &before);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->fault, StageFault::kSelf);
  EXPECT_THAT(failed->message, HasSubstr("write"));
  coordinator_.Assign(Next(2, 0));
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{2}, StageState::kReady));
}

uint64_t AddressSpaceBytes() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

TEST_F(WorkerEpochsTest, MemoryThatTheMachineDoesNotHaveFailsTheStageAndNotTheWorker) {
  WorkerOptions options = Options(coordinator_, state_.path());
  options.profile->memory_bytes = uint64_t{1} << 40;  // more than it has
  const auto worker = StartWorker(options);
  ASSERT_TRUE(coordinator_.AwaitAttached());
  coordinator_.Assign(Next(1, 0));
  ASSERT_TRUE(coordinator_.AwaitReport(Epoch{1}, StageState::kReady));
  const auto hop = coordinator_.OpenHop();
  RunFourPositions(*hop, 1);
  Assignment huge = Next(2, 0);
  huge.kv_tokens = uint64_t{1} << 26;
  rlimit before{};
  getrlimit(RLIMIT_AS, &before);
  const rlimit little{.rlim_cur = AddressSpaceBytes() + (uint64_t{1} << 30),
                      .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_AS, &little);
  coordinator_.Assign(huge);
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{2}, StageState::kFailed);
  setrlimit(RLIMIT_AS, &before);
  ASSERT_TRUE(failed);
  EXPECT_EQ(failed->fault, StageFault::kSelf);
  ExpectFifthRow(Run(*hop, OneStep(1, 3, {{kSequence, 4, 1}})));
}

TEST_F(WorkerEpochsTest, LateAndRepeatedAssignmentsAreIgnored) {
  const auto worker = ReadyWorker(Epoch{5});
  const auto hop = coordinator_.OpenHop();
  coordinator_.Assign(Next(4, 0));
  coordinator_.Assign(Next(5, 0));
  EXPECT_TRUE(Run(*hop, OneStep(5, 1, {{kSequence, 0, 3}})));
  coordinator_.Assign(Next(6, 5));
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{6}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_TRUE(ready->kept);
}

}  // namespace
}  // namespace efedllm
