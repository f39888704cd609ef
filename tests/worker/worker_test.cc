// A worker's life: joining, being refused, coming back, leaving.
#include "worker/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "worker/worker_world.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

using WorkerTest = WorkerWorld;

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
  clock.SetSkew(absl::Minutes(50));  // of an hour
  ASSERT_TRUE(coordinator_.AwaitAttached(2));
  EXPECT_EQ(coordinator_.renewals(), 1);
  EXPECT_EQ(coordinator_.enrolments(), 1);
}

TEST_F(WorkerTest, JoinsAndRenewsOnceWhereItsClockIsDaysAhead) {
  ManualClock clock(absl::Now());
  clock.SetSkew(absl::Hours(24 * 40));
  const auto worker = *Worker::Create(Options(coordinator_, state_.path()), clock);
  worker->Start();
  ASSERT_TRUE(coordinator_.AwaitAttached(2));  // once again with the renewed certificate
  clock.Advance(absl::Minutes(10));
  coordinator_.Detach();
  ASSERT_TRUE(coordinator_.AwaitAttached(3));
  EXPECT_EQ(coordinator_.renewals(), 1);
}

TEST_F(WorkerTest, ComesBackWithACertificateThatOnlyItsOwnClockCallsExpired) {
  ReadyWorker(Epoch{1}).reset();
  ManualClock clock(absl::Now());
  clock.SetSkew(absl::Hours(24 * 40));
  WorkerOptions options = Options(coordinator_, state_.path());
  options.token.reset();
  const auto worker = *Worker::Create(options, clock);
  worker->Start();
  EXPECT_TRUE(coordinator_.AwaitAttached(2));
  EXPECT_EQ(coordinator_.enrolments(), 1);
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

TEST_F(WorkerTest, GivesUpOnACoordinatorThatStaysAway) {
  FakeCoordinator gone(BytesOf(TinyModel()), 0, /*insecure=*/true);
  WorkerOptions options = Options(gone, state_.path());
  options.insecure = true;
  options.coordinator = "127.0.0.1:1";
  options.retry_for = absl::Milliseconds(200);
  const absl::Status end = EndOf(*StartWorker(options));
  EXPECT_TRUE(absl::IsDeadlineExceeded(end)) << end;
  EXPECT_FALSE(IsRefusal(end));
  EXPECT_THAT(std::string(end.message()), HasSubstr("--retry-for"));
}

TEST_F(WorkerTest, AttachesAnewToACoordinatorThatFellSilent) {
  coordinator_.SetFaults({.silent = true});
  ManualClock clock(absl::Now());
  const auto worker = *Worker::Create(Options(coordinator_, state_.path()), clock);
  worker->Start();
  ASSERT_TRUE(coordinator_.AwaitAttached());
  const NodeId node = worker->node();
  // The first one comes after the welcome.
  ASSERT_TRUE(coordinator_.AwaitMessage(
      [](const v1::WorkerMessage& message) { return message.has_heartbeat(); }));
  clock.Advance(absl::Seconds(6));
  ASSERT_TRUE(coordinator_.AwaitAttached(2));
  EXPECT_EQ(worker->node(), node);
  EXPECT_EQ(coordinator_.enrolments(), 1);
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
