// The worker against a coordinator that the test controls: joining, fetching, running, failing and
// coming back, over real sockets and real TLS.
#include "worker/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "model/gguf_builder.h"
#include "model/local_model.h"
#include "net/net_world.h"
#include "worker/fake_coordinator.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

// Feed-forward matrices of three chunks each.
const std::string& TinyModel() {
  static const auto* model = [] {
    TinyLlama tiny;
    tiny.d_ffn = 20000;
    return new std::string(tiny.Build());
  }();
  return *model;
}

WorkerOptions Options(const FakeCoordinator& coordinator, const std::string& state_dir) {
  WorkerOptions options;
  options.coordinator = coordinator.address();
  options.token = coordinator.token();
  options.state_dir = state_dir;
  options.name = "test";
  options.listen = "127.0.0.1:0";
  options.engine_version = "0";
  options.profile = NodeProfile{.threads = 1, .memory_bytes = uint64_t{1} << 30};
  options.least_backoff = absl::Milliseconds(10);
  options.most_backoff = absl::Milliseconds(50);
  return options;
}

class WorkerTest : public ::testing::Test {
 protected:
  std::unique_ptr<Worker> StartWorker(const WorkerOptions& options) {
    absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Create(options, clock_);
    EXPECT_TRUE(worker.ok()) << worker.status();
    (*worker)->Start();
    return *std::move(worker);
  }
  std::unique_ptr<Worker> StartWorker() {
    return StartWorker(Options(coordinator_, state_.path()));
  }

  // The end of a worker that ends by itself.
  absl::Status EndOf(Worker& worker) {
    const std::optional<absl::Status> end = worker.Wait(absl::Seconds(20));
    EXPECT_TRUE(end.has_value()) << "the worker still runs";
    return end.value_or(absl::OkStatus());
  }

  // A worker that is ready with these layers in this epoch.
  std::unique_ptr<Worker> ReadyWorker(Epoch epoch, LayerRange layers = {0, 2}) {
    std::unique_ptr<Worker> worker = StartWorker();
    EXPECT_TRUE(coordinator_.AwaitAttached());
    coordinator_.Assign(coordinator_.MakeAssignment(epoch, layers));
    EXPECT_TRUE(coordinator_.AwaitReport(epoch, StageState::kReady));
    return worker;
  }

  Step OneStep(uint64_t epoch, uint64_t id, std::vector<SequenceSpan> spans) const {
    Step step;
    step.epoch = Epoch{epoch};
    step.id = StepId{id};
    step.spans = std::move(spans);
    return step;
  }
  Matrix SomeHidden(size_t rows) const {
    Matrix hidden(rows, coordinator_.config().d_model);
    float next = -1;
    for (float& value : hidden.ref().span()) value = (next += 0.013f) > 1 ? next -= 2 : next;
    return hidden;
  }
  absl::Status SendStep(HopSender& hop, const Step& step) {
    return hop.Send(StepToWire(step, SomeHidden(step.tokens()).ref(), CodecId::kF32),
                    absl::Seconds(10));
  }
  StepLimits limits() const { return coordinator_.MakeAssignment(Epoch{1}, {0, 1}).limits; }

  SystemClock clock_;
  TemporaryFolder state_;
  FakeCoordinator coordinator_{BytesOf(TinyModel())};
};

TEST_F(WorkerTest, EnrolsOnceAndKeepsItsIdentity) {
  NodeId node;
  {
    const auto worker = StartWorker();
    ASSERT_TRUE(coordinator_.AwaitAttached());
    node = worker->node();
  }
  EXPECT_EQ(coordinator_.enrolments(), 1);
  WorkerOptions options = Options(coordinator_, state_.path());
  options.token.reset();
  const auto again = StartWorker(options);
  ASSERT_TRUE(coordinator_.AwaitAttached(2));
  EXPECT_EQ(again->node(), node);
  EXPECT_EQ(coordinator_.enrolments(), 1);
}

TEST_F(WorkerTest, KeyAndFolderAreForTheOwnerAlone) {
  const auto worker = StartWorker();
  using std::filesystem::perms;
  const perms others = perms::group_all | perms::others_all;
  const auto mode = [&](const char* file) {
    return std::filesystem::status(state_.path() + file).permissions() & others;
  };
  EXPECT_EQ(mode("/node.key"), perms::none);
  EXPECT_EQ(mode("/weights"), perms::none);
}

TEST_F(WorkerTest, TwoWorkersCantShareAStateFolder) {
  const auto worker = StartWorker();
  const auto second = Worker::Create(Options(coordinator_, state_.path()), clock_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--state-dir"));
}

TEST_F(WorkerTest, AWrongTokenIsRefusedForGood) {
  WorkerOptions options = Options(coordinator_, state_.path());
  options.token->secret = std::string(16, 'x');
  const absl::Status end = EndOf(*StartWorker(options));
  EXPECT_EQ(end.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_TRUE(IsRefusal(end));
  EXPECT_THAT(std::string(end.message()), HasSubstr("wrong"));
}

TEST_F(WorkerTest, ATokenOfAnotherCoordinatorIsRefusedForGood) {
  WorkerOptions options = Options(coordinator_, state_.path());
  options.token->ca_fingerprint[3] ^= 1;
  const absl::Status end = EndOf(*StartWorker(options));
  EXPECT_TRUE(IsRefusal(end)) << end;
  EXPECT_EQ(coordinator_.enrolments(), 0);
}

TEST_F(WorkerTest, NoTokenAndNoIdentityEndsWithWhatToDo) {
  WorkerOptions options = Options(coordinator_, state_.path());
  options.token.reset();
  const absl::Status end = EndOf(*StartWorker(options));
  EXPECT_TRUE(IsRefusal(end));
  EXPECT_THAT(std::string(end.message()), HasSubstr("--token"));
}

TEST_F(WorkerTest, AnotherProtocolVersionEndsIt) {
  coordinator_.SetFaults(
      {.attach = grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "update the worker")});
  const absl::Status end = EndOf(*StartWorker());
  EXPECT_TRUE(IsRefusal(end));
  EXPECT_THAT(std::string(end.message()), HasSubstr("update the worker"));
}

TEST_F(WorkerTest, ACoordinatorWithAnotherCaIsNotTrustedAndSaysSo) {
  {
    const auto worker = StartWorker();
    ASSERT_TRUE(coordinator_.AwaitAttached());
  }
  FakeCoordinator other{BytesOf(TinyModel())};
  WorkerOptions options = Options(other, state_.path());
  options.token.reset();
  const absl::Status end = EndOf(*StartWorker(options));
  EXPECT_TRUE(IsRefusal(end)) << end;
  EXPECT_THAT(std::string(end.message()), HasSubstr("not the one that this node joined"));
  // With its token the same node joins it.
  const auto worker = StartWorker(Options(other, state_.path()));
  EXPECT_TRUE(other.AwaitAttached());
}

TEST_F(WorkerTest, RenewsItsCertificateInTime) {
  ManualClock clock(absl::Now());
  const auto worker = *Worker::Create(Options(coordinator_, state_.path()), clock);
  worker->Start();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  EXPECT_EQ(coordinator_.renewals(), 0);
  clock.Advance(absl::Minutes(50));  // of an hour
  ASSERT_TRUE(coordinator_.AwaitAttached(2));
  EXPECT_EQ(coordinator_.renewals(), 1);
  EXPECT_EQ(coordinator_.enrolments(), 1);
}

TEST_F(WorkerTest, FetchesItsTensorsAndIsReadyAfterTheSelfTest) {
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

TEST_F(WorkerTest, ARestartFetchesNothing) {
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

TEST_F(WorkerTest, ACorruptedChunkIsFetchedAgain) {
  coordinator_.SetFaults({.corrupt_chunks = 2});
  const auto worker = ReadyWorker(Epoch{1});
  const Assignment assignment = coordinator_.MakeAssignment(Epoch{1}, {0, 2});
  uint64_t chunks = 0;
  for (const TensorSpec& tensor : assignment.tensors) chunks += tensor.chunk_count();
  EXPECT_GE(coordinator_.chunks_sent(), chunks + 2);
}

TEST_F(WorkerTest, AChunkThatIsAlwaysDamagedFailsTheStage) {
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

TEST_F(WorkerTest, AnInterruptedFetchGoesOnWhereItWas) {
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

TEST_F(WorkerTest, ANewAssignmentCancelsTheFetchUnderWay) {
  coordinator_.SetFaults({.chunk_delay = absl::Seconds(2)});
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{1}, {0, 1}));
  ASSERT_TRUE(coordinator_.AwaitReport(Epoch{1}, StageState::kFetching));
  coordinator_.SetFaults({});
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{2}, {1, 2}));
  EXPECT_TRUE(coordinator_.AwaitReport(Epoch{2}, StageState::kReady));
}

TEST_F(WorkerTest, AStageBeyondItsMemoryFailsWithTheNumbers) {
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

TEST_F(WorkerTest, AMalformedAssignmentFailsAndTheWorkerLivesOn) {
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

TEST_F(WorkerTest, RunsStepsAsTheExecutorDoesBitForBit) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  const Assignment assignment = coordinator_.MakeAssignment(Epoch{1}, {0, 2});
  const GgufFile file = *GgufFile::Parse(BytesOf(TinyModel()));
  Compute compute = *Compute::Create(0, "scalar");
  const auto tensors = *LoadStageTensors(assignment.config, file, {0, 2}, nullptr);
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

TEST_F(WorkerTest, AStepThatCantRunIsAnsweredAndTheNextOneRuns) {
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

TEST_F(WorkerTest, PassesAnEarlierStagesFailureOnAndReleases) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 1, {{SequenceId{1}, 0, 1}})).ok());
  ASSERT_TRUE(coordinator_.AwaitStep(limits()));
  Step failed = OneStep(1, 2, {{SequenceId{2}, 0, 1}});
  failed.released = {SequenceId{1}};
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

TEST_F(WorkerTest, StepsOfAnotherEpochAreDropped) {
  const auto worker = ReadyWorker(Epoch{5});
  const auto hop = coordinator_.OpenHop();
  ASSERT_TRUE(SendStep(*hop, OneStep(4, 9, {{SequenceId{1}, 0, 1}})).ok());
  ASSERT_TRUE(SendStep(*hop, OneStep(5, 1, {{SequenceId{1}, 0, 1}})).ok());
  const std::optional<StepFrame> result = coordinator_.AwaitStep(limits());
  ASSERT_TRUE(result);
  EXPECT_EQ(result->step.epoch, Epoch{5});
  EXPECT_EQ(result->step.id, StepId{1});
}

TEST_F(WorkerTest, MalformedStepsFailTheStageAndNotTheWorker) {
  const auto worker = ReadyWorker(Epoch{1});
  const grpc::Slice garbage(std::string(3000, '\xee'));
  Matrix not_a_number = SomeHidden(1);
  not_a_number.row(0)[3] = std::numeric_limits<float>::quiet_NaN();
  const grpc::ByteBuffer frames[] = {
      grpc::ByteBuffer(&garbage, 1),
      StepToWire(OneStep(2, 1, {{SequenceId{1}, 0, 1}}), not_a_number.ref(), CodecId::kF32),
      StepToWire(OneStep(3, 1, {{SequenceId{1}, 0, 900}}), SomeHidden(900).ref(), CodecId::kF32)};
  uint64_t epoch = 1;
  for (const grpc::ByteBuffer& frame : frames) {
    const auto hop = coordinator_.OpenHop();
    ASSERT_TRUE(hop->Send(frame, absl::Seconds(10)).ok());
    const std::optional<StageReport> failed =
        coordinator_.AwaitReport(Epoch{epoch}, StageState::kFailed);
    ASSERT_TRUE(failed);
    EXPECT_THAT(failed->message, HasSubstr("malformed step"));
    coordinator_.Assign(coordinator_.MakeAssignment(Epoch{++epoch}, {0, 2}));
    ASSERT_TRUE(coordinator_.AwaitReport(Epoch{epoch}, StageState::kReady));
  }
}

TEST_F(WorkerTest, AGapBetweenStepsFailsTheStage) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 1, {{SequenceId{1}, 0, 1}})).ok());
  ASSERT_TRUE(SendStep(*hop, OneStep(1, 3, {{SequenceId{1}, 1, 1}})).ok());
  const std::optional<StageReport> failed = coordinator_.AwaitReport(Epoch{1}, StageState::kFailed);
  ASSERT_TRUE(failed);
  EXPECT_THAT(failed->message, HasSubstr("step 3 came after step 1"));
}

TEST_F(WorkerTest, AReleasedStageTakesNoMoreSteps) {
  const auto worker = ReadyWorker(Epoch{1});
  coordinator_.Release(Epoch{1});
  EXPECT_TRUE(coordinator_.AwaitMessage([seen = false](const v1::WorkerMessage& message) mutable {
    seen = seen ||
           (message.has_stage_status() && message.stage_status().state() == v1::StageStatus::READY);
    return seen && message.has_heartbeat() && message.heartbeat().epoch() == 0;
  }));
}

TEST_F(WorkerTest, ComesBackAfterTheStreamBreaksAndTakesANewStage) {
  const auto worker = ReadyWorker(Epoch{1});
  coordinator_.Detach();
  ASSERT_TRUE(coordinator_.AwaitAttached(2));
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{2}, {0, 2}));
  const std::optional<StageReport> ready = coordinator_.AwaitReport(Epoch{2}, StageState::kReady);
  ASSERT_TRUE(ready);
  EXPECT_EQ(ready->bytes_fetched, 0u);
}

TEST_F(WorkerTest, WaitsForACoordinatorThatStartsLater) {
  TemporaryFolder state;
  auto first = std::make_unique<FakeCoordinator>(BytesOf(TinyModel()), 0, /*insecure=*/true);
  const int port = first->port();
  WorkerOptions options = Options(*first, state.path());
  options.insecure = true;
  first.reset();
  const auto worker = StartWorker(options);
  absl::SleepFor(absl::Milliseconds(300));
  FakeCoordinator second(BytesOf(TinyModel()), port, /*insecure=*/true);
  ASSERT_TRUE(second.AwaitAttached());
  second.Assign(second.MakeAssignment(Epoch{1}, {0, 2}));
  EXPECT_TRUE(second.AwaitReport(Epoch{1}, StageState::kReady));
}

TEST_F(WorkerTest, InsecureIsForLoopbackAlone) {
  WorkerOptions options = Options(coordinator_, state_.path());
  options.insecure = true;
  options.listen = "0.0.0.0:0";
  EXPECT_EQ(Worker::Create(options, clock_).status().code(), absl::StatusCode::kInvalidArgument);
  options.listen = "127.0.0.1:0";
  options.coordinator = "10.1.2.3:7070";
  EXPECT_EQ(Worker::Create(options, clock_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(WorkerTest, APortThatIsTakenEndsIt) {
  WorkerOptions options = Options(coordinator_, state_.path());
  options.listen = coordinator_.address();
  const absl::Status end = EndOf(*StartWorker(options));
  EXPECT_FALSE(end.ok());
  EXPECT_FALSE(IsRefusal(end));
  EXPECT_THAT(std::string(end.message()), HasSubstr("can't listen"));
}

TEST_F(WorkerTest, StopLeavesInGoodOrder) {
  const auto worker = ReadyWorker(Epoch{1});
  worker->Stop();
  const std::optional<absl::Status> end = worker->Wait(absl::Seconds(20));
  ASSERT_TRUE(end);
  EXPECT_TRUE(end->ok()) << *end;
  EXPECT_TRUE(coordinator_.AwaitMessage(
      [](const v1::WorkerMessage& message) { return message.has_leaving(); }));
}

TEST_F(WorkerTest, StopDuringAFetchIsPrompt) {
  coordinator_.SetFaults({.chunk_delay = absl::Seconds(1)});
  const auto worker = StartWorker();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  coordinator_.Assign(coordinator_.MakeAssignment(Epoch{1}, {0, 2}));
  ASSERT_TRUE(coordinator_.AwaitReport(Epoch{1}, StageState::kFetching));
  worker->Stop();
  EXPECT_TRUE(worker->Wait(absl::Seconds(10)));
}

TEST_F(WorkerTest, SaysWhoItIs) {
  WorkerOptions options = Options(coordinator_, state_.path());
  options.advertise = "198.51.100.7:4444";
  const auto worker = StartWorker(options);
  ASSERT_TRUE(coordinator_.AwaitAttached());
  const Hello hello = coordinator_.hello();
  EXPECT_EQ(hello.name, "test");
  EXPECT_EQ(hello.hop_address, "198.51.100.7:4444");
  EXPECT_EQ(hello.numerics_id, kNumericsId);
  EXPECT_EQ(hello.profile.memory_bytes, uint64_t{1} << 30);
}

}  // namespace
}  // namespace efedllm
