// A worker between epochs: the prepared stage beside the one that runs, KV that stays or moves,
// and whose fault it is when a stage fails.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "model/stage_executor.h"
#include "model/tensor_loader.h"
#include "worker/prefetcher.h"
#include "worker/stage_slots.h"
#include "worker/worker_world.h"

namespace efedllm {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr SequenceId kSequence{1};

class WorkerEpochsTest : public WorkerWorld {
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
    EXPECT_THAT(result->hidden.ref().span(), ElementsAreArray(FifthRow().ref().span()));
  }

  Compute compute_ = *Compute::Create(0, "scalar");
};

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

// A node with slots of the test, into which others hand KV over.
class Receiver final : public KvSink {
 public:
  explicit Receiver(const Transport& transport)
      : transport_(transport), hops_(transport_, 1 << 20), receiver_(transport_) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    hops_.Register(builder);
    receiver_.Register(builder);
    server_ = builder.BuildAndStart();
    receiver_.SetSink(this);
  }
  ~Receiver() override {
    hops_.Shutdown();
    server_->Shutdown(std::chrono::system_clock::now());
  }
  absl::Status TakeKv(const grpc::ByteBuffer& frame) override { return slots.Import(frame); }
  absl::Status FinishKv(NodeId /*from*/, Epoch next_epoch) override {
    return slots.FinishImport(next_epoch);
  }
  HandOver From(uint64_t epoch, uint64_t next_epoch) const {
    return {Epoch{epoch}, Epoch{next_epoch}, transport_.self(), absl::StrCat("127.0.0.1:", port_)};
  }

  StageSlots slots;

 private:
  const Transport transport_;
  HopReceiver hops_;
  KvReceiver receiver_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(WorkerEpochsTest, HandsItsKvOverBitForBit) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  RunFourPositions(*hop, 1);
  const Assignment next = Next(2, 1);
  Receiver receiver(coordinator_.NewNode());
  const auto stage = std::make_shared<HeldStage>(next, NodeId{5}, Reference(next), nullptr, clock_);
  receiver.slots.Prepare(stage);
  coordinator_.HandOverTo(receiver.From(1, 2));
  const std::optional<HandedOver> handed_over = coordinator_.AwaitHandedOver();
  ASSERT_TRUE(handed_over);
  EXPECT_EQ(handed_over->epoch, Epoch{1});
  EXPECT_EQ(handed_over->message, "");
  EXPECT_GT(handed_over->bytes, 0u);
  Matrix hidden = SomeHidden(1);
  ASSERT_TRUE(stage->executor()->Run(OneStep(2, 1, {{kSequence, 4, 1}}), hidden.ref()).ok());
  EXPECT_THAT(hidden.ref().span(), ElementsAreArray(FifthRow().ref().span()));
  // It could not run on, but an epoch that is planned after all may adopt what it has.
  coordinator_.Assign(Next(3, 1));
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{3}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_TRUE(ready->kept);
}

TEST_F(WorkerEpochsTest, AHandOverThatFailsSaysWhy) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  RunFourPositions(*hop, 1);
  const Receiver nothing_prepared(coordinator_.NewNode());
  coordinator_.HandOverTo(nothing_prepared.From(1, 2));
  const std::optional<HandedOver> handed_over = coordinator_.AwaitHandedOver();
  ASSERT_TRUE(handed_over);
  EXPECT_FALSE(handed_over->message.empty());
}

TEST_F(WorkerEpochsTest, TakesKvOverAndIsReadyOnceMore) {
  const Assignment assignment = Next(2, 1);
  StageSlots from;
  from.Prepare(
      std::make_shared<HeldStage>(Next(1, 0), NodeId{5}, Reference(assignment), nullptr, clock_));
  ASSERT_TRUE(from.Enter(from.prepared()));
  Matrix hidden = SomeHidden(3);
  ASSERT_TRUE(
      from.running()->executor()->Run(OneStep(1, 1, {{kSequence, 0, 3}}), hidden.ref()).ok());
  hidden = SomeHidden(1);
  ASSERT_TRUE(
      from.running()->executor()->Run(OneStep(1, 2, {{kSequence, 3, 1}}), hidden.ref()).ok());
  ASSERT_TRUE(from.Halt(*from.running()));

  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  coordinator_.Assign(assignment);
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{2}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_FALSE(ready->kept);
  const auto sender = coordinator_.OpenKv(Epoch{2});
  uint32_t first = 0;
  while (first < 4) {
    const auto frame = from.Export(Epoch{1}, Epoch{2}, {kSequence, 4}, first);
    ASSERT_TRUE(frame.ok()) << frame.status();
    ASSERT_TRUE(sender->Send(*frame).ok());
  }
  const absl::Status end = sender->Finish();
  ASSERT_TRUE(end.ok()) << end;
  ASSERT_TRUE(coordinator_.AwaitReport([](const StageReport& report) {
    return report.epoch == Epoch{2} && report.state == StageState::kReady && report.kept;
  }));
  const auto hop = coordinator_.OpenHop();
  ExpectFifthRow(Run(*hop, OneStep(2, 1, {{kSequence, 4, 1}})));
}

TEST_F(WorkerEpochsTest, KvThatIsNotForItIsRefused) {
  const auto worker = ReadyWorker(Epoch{2});
  const auto sender = coordinator_.OpenKv(Epoch{3});
  EXPECT_TRUE(absl::IsFailedPrecondition(sender->Finish()));
  const auto garbage = coordinator_.OpenKv(Epoch{2});
  const grpc::Slice bytes(std::string(3000, '\xee'));
  while (garbage->Send(grpc::ByteBuffer(&bytes, 1)).ok()) {
  }
  EXPECT_FALSE(garbage->Finish().ok());
}

TEST_F(WorkerEpochsTest, PrefetchedWeightsAreNotFetchedAgain) {
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  const Assignment assignment = Next(1, 0);
  uint64_t chunks = 0;
  for (const TensorSpec& tensor : assignment.tensors) chunks += tensor.chunk_count();
  coordinator_.SendPrefetch(assignment.tensors);
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (coordinator_.chunks_sent() < chunks && absl::Now() < deadline) {
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

TEST(Prefetcher, LeavesATenthOfTheDiskAndAGigabyteFree) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  EXPECT_TRUE(HasRoomToPrefetch({.free = 3 * kGiB, .total = 10 * kGiB}, 2 * kGiB));
  EXPECT_FALSE(HasRoomToPrefetch({.free = 3 * kGiB, .total = 10 * kGiB}, 2 * kGiB + 1));
  EXPECT_FALSE(HasRoomToPrefetch({.free = 3 * kGiB, .total = 100 * kGiB}, 1));
  EXPECT_FALSE(HasRoomToPrefetch({.free = kGiB / 2, .total = kGiB}, 1));
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
