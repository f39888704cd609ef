#include "worker/stage_runner.h"

#include <grpcpp/server.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "absl/time/clock.h"
#include "worker/stage_world.h"

namespace efedllm {
namespace {

constexpr SequenceId kSequence{1};

// The next node, as the test wants it.
struct Downstream {
  std::atomic<bool> takes{true};
  std::atomic<bool> answers{true};
  std::atomic<int> frames{0};
  std::atomic<int> echoes{0};
};

class FakeSender final : public FrameSender {
 public:
  explicit FakeSender(Downstream& to) : to_(to) {}
  absl::Status Send(grpc::ByteBuffer /*frame*/, absl::Duration timeout) override {
    if (!to_.takes) {
      absl::SleepFor(timeout);
      return absl::DeadlineExceededError("it takes nothing");
    }
    ++to_.frames;
    return absl::OkStatus();
  }
  absl::Status Echo(absl::Duration /*timeout*/) override {
    ++to_.echoes;
    return to_.answers ? absl::OkStatus() : absl::UnavailableError("it is not there");
  }

 private:
  Downstream& to_;
};

class StageRunnerTest : public ::testing::Test {
 protected:
  StageRunnerTest() {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    receiver_.Register(builder);
    server_ = builder.BuildAndStart();
    runner_ = std::make_unique<StageRunner>(
        receiver_, clock_, [this](Epoch epoch, const absl::Status& why, StageFault fault) {
          absl::MutexLock lock(&mu_);
          failures_.push_back(
              {.epoch = epoch, .message = std::string(why.message()), .fault = fault});
        });
  }
  ~StageRunnerTest() override {
    sender_.reset();
    runner_.reset();
    server_->Shutdown(std::chrono::system_clock::now());
  }

  void Prepare(const Assignment& assignment, Downstream& to) {
    const bool kept = runner_->CanContinue(assignment);
    ASSERT_TRUE(runner_
                    ->Prepare(std::make_shared<HeldStage>(
                        assignment, NodeId{9}, kept ? nullptr : world_.MakeExecutor(assignment),
                        StageBases(), std::make_unique<FakeSender>(to), clock_))
                    .ok());
  }
  void Send(const Step& step) {
    if (sender_ == nullptr) {
      sender_ = HopSender::Open(upstream_, absl::StrCat("127.0.0.1:", port_), NodeId{9});
    }
    ASSERT_TRUE(sender_->Send(world_.Frame(step).bytes, absl::Seconds(10)).ok());
  }
  static bool AwaitUntil(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!condition() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(5));
    return condition();
  }
  std::vector<StageReport> failures() {
    absl::MutexLock lock(&mu_);
    return failures_;
  }

  StageWorld world_;
  const SystemClock clock_;
  const Transport transport_ = Transport::Insecure(NodeId{9});
  const Transport upstream_ = Transport::Insecure(kUpstream);
  HopReceiver receiver_{transport_, 1 << 20};
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  absl::Mutex mu_;
  std::vector<StageReport> failures_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<StageRunner> runner_;
  std::unique_ptr<HopSender> sender_;
};

TEST_F(StageRunnerTest, ADownstreamThatIsNotThereIsAFaultWithoutAnotherFrame) {
  Downstream to;
  Prepare(world_.MakeAssignment(1), to);
  Send(MakeStep(1, 1, {{kSequence, 0, 4}}));
  ASSERT_TRUE(AwaitUntil([&] { return to.echoes > 0; }));
  EXPECT_TRUE(failures().empty());
  to.answers = false;
  Send(MakeStep(1, 2, {{kSequence, 4, 1}}));
  ASSERT_TRUE(AwaitUntil([&] { return !failures().empty(); }));
  EXPECT_EQ(failures()[0].epoch, Epoch{1});
  EXPECT_EQ(failures()[0].fault, StageFault::kDownstream);
  EXPECT_TRUE(runner_->CanContinue(world_.MakeAssignment(2, {0, 4}, 1))) << "its KV stays";
}

TEST_F(StageRunnerTest, ADownstreamThatIsOnlySlowIsNoFault) {
  Downstream to;
  to.takes = false;
  Prepare(world_.MakeAssignment(1), to);
  Send(MakeStep(1, 1, {{kSequence, 0, 4}}));
  ASSERT_TRUE(AwaitUntil([&] { return to.echoes > 1; }));
  to.takes = true;
  ASSERT_TRUE(AwaitUntil([&] { return to.frames == 1; }));
  EXPECT_TRUE(failures().empty());
}

TEST_F(StageRunnerTest, TheNextEpochGetsThroughWhereTheOldOnesDownstreamTakesNothing) {
  Downstream old, next;
  old.takes = false;
  Prepare(world_.MakeAssignment(1), old);
  for (uint32_t i = 0; i < 5; ++i) Send(MakeStep(1, i + 1, {{kSequence, i, 1}}));
  ASSERT_TRUE(AwaitUntil([&] { return runner_->counters().epoch == Epoch{1}; }));
  ASSERT_TRUE(AwaitUntil([&] {
    return runner_->CanContinue(world_.MakeAssignment(2, {0, 4}, 1));
  }));
  Prepare(world_.MakeAssignment(2, {0, 4}, 1), next);
  sender_.reset();
  Step first = MakeStep(2, 1, {{kSequence, 0, 1}});
  first.forget_others = true;
  Send(first);
  EXPECT_TRUE(AwaitUntil([&] { return next.frames == 1; }));
  EXPECT_EQ(old.frames, 0);
  EXPECT_TRUE(failures().empty());
}

TEST_F(StageRunnerTest, ReleaseFreesTheStagesWhileAFrameIsStuck) {
  Downstream to;
  to.takes = false;
  Prepare(world_.MakeAssignment(1), to);
  for (uint32_t i = 0; i < 3; ++i) Send(MakeStep(1, i + 1, {{kSequence, i, 1}}));
  ASSERT_TRUE(AwaitUntil([&] {
    return runner_->CanContinue(world_.MakeAssignment(2, {0, 4}, 1));
  }));
  runner_->Release();
  EXPECT_EQ(runner_->counters().epoch, Epoch{0});
  EXPECT_FALSE(runner_->CanContinue(world_.MakeAssignment(2, {0, 4}, 1)));
}

}  // namespace
}  // namespace efedllm
