// An epoch over one "worker" that this test plays, with real hops over loopback.
#include "coordinator/cluster_pipeline.h"

#include <gmock/gmock.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "net/credentials.h"
#include "testing/plain_frame.h"
#include "wire/step_wire.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

constexpr size_t kWidth = 8;
constexpr NodeId kWorker{42};
constexpr Epoch kEpoch{7};

StepLimits Limits() {
  StepLimits limits;
  limits.max_position = 1024;
  return limits;
}

bool Probed(ClusterPipeline& pipeline) {
  pipeline.Probe();
  const absl::Time until = absl::Now() + absl::Seconds(20);
  while (!pipeline.probed() && pipeline.ended().ok() && absl::Now() < until) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  return pipeline.probed();
}

// A node's end of its hops.
struct Endpoint {
  explicit Endpoint(NodeId self)
      : transport(Transport::Insecure(self)),
        receiver(transport, MaxStepFrameBytes(Limits(), kWidth)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", transport.server_credentials(), &port);
    receiver.Register(builder);
    server = builder.BuildAndStart();
  }
  ~Endpoint() {
    receiver.Shutdown();
    server->Shutdown();
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port); }

  Transport transport;
  HopReceiver receiver;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

class ClusterPipelineTest : public testing::Test {
 protected:
  using Answer = std::function<std::optional<grpc::ByteBuffer>(const StepFrame&)>;

  void SetUp() override {
    coordinator_.receiver.SetUpstream(kWorker);
    worker_.receiver.SetUpstream(kCoordinatorNode);
    Open(kEpoch);
  }
  void TearDown() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    pipeline_.reset();
  }

  void Open(Epoch epoch) {
    ClusterPipelineOptions options;
    options.capacity.epoch = epoch;
    options.capacity.chains = {{2, 0}};
    options.capacity.limits = Limits();
    options.d_model = kWidth;
    options.estimate = [](size_t, size_t) { return absl::ZeroDuration(); };
    options.clock = &clock_;
    options.deadlines.lost = absl::Milliseconds(500);
    options.on_end = [this](const absl::Status&) { ++ends_; };
    std::vector<ChainEdges> edges;
    edges.push_back({HopSender::Open(coordinator_.transport, worker_.address(), kWorker),
                     {NodeId{41}, kWorker}});
    pipeline_ = ClusterPipeline::Open(options, std::move(edges), {}, inbox_);
  }

  // The worker answers each frame like this; nullopt: not at all.
  void Play(Answer answer) {
    thread_ = std::thread([this, answer = std::move(answer)] {
      const auto sender =
          HopSender::Open(worker_.transport, coordinator_.address(), kCoordinatorNode);
      StepFrame frame;
      while (!stop_) {
        const auto hop = worker_.receiver.Next(absl::Milliseconds(10));
        if (!hop || !PlainStepFromWire(hop->bytes, Limits(), kWidth, frame).ok()) continue;
        const std::optional<grpc::ByteBuffer> reply = answer(frame);
        if (reply) sender->Send(*reply, absl::Seconds(5)).IgnoreError();
      }
    });
  }
  static std::optional<grpc::ByteBuffer> Negate(const StepFrame& frame) {
    Matrix out = frame.hidden;
    for (float& value : out.ref().span()) value = -value;
    return PlainStepToWire(frame.step, out.ref());
  }

  absl::Status Submit(uint64_t id, float value, Epoch epoch = kEpoch) {
    Step step;
    step.epoch = epoch;
    step.id = StepId{id};
    step.spans.push_back({SequenceId{1}, static_cast<uint32_t>(id), 1});
    Matrix hidden(1, kWidth);
    hidden.row(0)[0] = value;
    return pipeline_->Submit(std::move(step), 0, std::move(hidden));
  }
  StepResult Next() {
    std::optional<StepResult> result = pipeline_->NextResult(absl::Seconds(20));
    EXPECT_TRUE(result.has_value());
    return result.has_value() ? *std::move(result) : StepResult();
  }
  void ExpectLost(const std::string& why) {
    const StepResult result = Next();
    EXPECT_TRUE(absl::IsUnavailable(result.status)) << result.status;
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(why));
    EXPECT_TRUE(absl::IsUnavailable(pipeline_->Capacity().status()));
    for (int i = 0; i < 500 && ends_ == 0; ++i) absl::SleepFor(absl::Milliseconds(10));
    EXPECT_EQ(ends_, 1);
  }

  Endpoint coordinator_{kCoordinatorNode}, worker_{kWorker};
  SystemClock clock_;
  HopInbox inbox_{coordinator_.receiver};
  std::atomic<int> ends_ = 0;
  std::shared_ptr<ClusterPipeline> pipeline_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST_F(ClusterPipelineTest, GivesResultsInTheOrderOfTheSteps) {
  Play(Negate);
  EXPECT_TRUE(Probed(*pipeline_));
  for (uint64_t i = 0; i < 12; ++i) EXPECT_TRUE(Submit(100 + i, static_cast<float>(i)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Submit(112, 0)));
  for (uint64_t i = 0; i < 12; ++i) {
    const StepResult result = Next();
    EXPECT_EQ(result.id.v, 100 + i);
    ASSERT_EQ(result.hidden.rows(), 1u);
    EXPECT_EQ(result.hidden.ref().row(0)[0], -static_cast<float>(i));
  }
  EXPECT_FALSE(pipeline_->NextResult(absl::Milliseconds(1)).has_value());
  EXPECT_TRUE(absl::IsAborted(Submit(1, 0, Epoch{8})));
}

TEST_F(ClusterPipelineTest, PassesOnWhyAStageCouldNotRunAStepAndLivesOn) {
  Play([](const StepFrame& frame) -> std::optional<grpc::ByteBuffer> {
    if (frame.hidden.ref().row(0)[0] == 0) return Negate(frame);
    return StepFailureToWire(frame.step, kWorker, absl::ResourceExhaustedError("no KV page left"));
  });
  ASSERT_TRUE(Submit(1, 1).ok());
  ASSERT_TRUE(Submit(2, 0).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Next().status));
  EXPECT_TRUE(Next().status.ok());
  EXPECT_EQ(ends_, 0);
}

TEST_F(ClusterPipelineTest, EndsWhenAResultIsMalformed) {
  Play([](const StepFrame&) {
    const grpc::Slice nonsense("\xff\xff nonsense");
    return grpc::ByteBuffer(&nonsense, 1);
  });
  ASSERT_TRUE(Submit(1, 1).ok());
  ExpectLost("malformed");
}

TEST_F(ClusterPipelineTest, EndsWhenAResultIsOfAnotherStep) {
  Play([](const StepFrame& frame) -> std::optional<grpc::ByteBuffer> {
    if (frame.step.id.v == 1) return std::nullopt;
    StepFrame other = frame;
    other.step.id = StepId{1};
    other.step.spans[0].first_position += 1;
    return Negate(other);
  });
  ASSERT_TRUE(Submit(1, 1).ok());
  ASSERT_TRUE(Submit(2, 1).ok());
  ExpectLost("nobody waits for");
  EXPECT_TRUE(absl::IsUnavailable(Next().status)) << "each accepted step has one result";
  EXPECT_TRUE(absl::IsAborted(Submit(3, 1)));
}

TEST_F(ClusterPipelineTest, IgnoresFramesOfAnEpochThatIsOver) {
  Play([](const StepFrame& frame) {
    StepFrame old = frame;
    old.step.epoch = Epoch{6};
    return Negate(old);
  });
  ASSERT_TRUE(Submit(1, 1).ok());
  ExpectLost("far longer");
}

TEST_F(ClusterPipelineTest, EndsWhenAStepTakesTooLong) {
  Play([](const StepFrame&) { return std::nullopt; });
  ASSERT_TRUE(Submit(1, 1).ok());
  ExpectLost("far longer");
}

TEST_F(ClusterPipelineTest, EndsWhenTheFirstStageIsGone) {
  pipeline_.reset();
  worker_.receiver.Shutdown();
  worker_.server->Shutdown();
  Open(kEpoch);
  for (uint64_t i = 0; i < 5 && Submit(i, 1).ok(); ++i) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_TRUE(absl::IsUnavailable(Next().status));
  EXPECT_EQ(ends_, 1);
}

TEST_F(ClusterPipelineTest, EndWakesAThreadThatWaits) {
  Play([](const StepFrame&) { return std::nullopt; });
  ASSERT_TRUE(Submit(1, 1).ok());
  std::thread ender([this] { pipeline_->End(absl::UnavailableError("a worker was lost")); });
  ExpectLost("a worker was lost");
  ender.join();
  pipeline_->End(absl::UnavailableError("again"));
  EXPECT_EQ(ends_, 1);
}

TEST_F(ClusterPipelineTest, AResultThatComesTwiceEndsTheEpoch) {
  Play([](const StepFrame& frame) {
    if (frame.step.id.v == 2) {
      StepFrame first = frame;
      first.step.id = StepId{1};
      return Negate(first);
    }
    return Negate(frame);
  });
  ASSERT_TRUE(Submit(1, 1).ok());
  EXPECT_TRUE(Next().status.ok());
  ASSERT_TRUE(Submit(2, 1).ok());
  ExpectLost("nobody waits for");
}

TEST_F(ClusterPipelineTest, LearnsWhatStepsTake) {
  Play([](const StepFrame& frame) -> std::optional<grpc::ByteBuffer> {
    const std::vector<StageTiming> timings = {{NodeId(), 0, 0, 0, 7000, 0},
                                              {NodeId(), 0, 0, 0, 3000, 0}};
    return PlainStepToWire(frame.step, frame.hidden.ref(), timings);
  });
  for (uint64_t i = 0; i < 5; ++i) {
    ASSERT_TRUE(Submit(i, 1).ok());
    const StepResult result = Next();
    ASSERT_EQ(result.timings.size(), 2u);
    // By the plan: the frame does not say.
    EXPECT_EQ(result.timings[0].node, NodeId{41});
    EXPECT_EQ(result.timings[1].received_codec, CodecSetting().number());
  }
  const std::vector<ChainTimes> times = pipeline_->Times();
  ASSERT_TRUE(times[0].known());
  EXPECT_NEAR(times[0].stage(0).Seconds(1), 0.007, 1e-6);
  EXPECT_NEAR(times[0].stage(1).Seconds(1), 0.003, 1e-6);
}

// Workers that this test plays, each answering with a number of its own.
class SeveralWorkers : public testing::Test {
 protected:
  static constexpr NodeId kFirst{1}, kSecond{2};

  // Adds `add` to all values of what comes in, and sends it to `to`.
  void Play(Endpoint& worker, const std::string& to, NodeId peer, float add) {
    threads_.emplace_back([this, &worker, to, peer, add] {
      const auto sender = HopSender::Open(worker.transport, to, peer);
      StepFrame frame;
      while (!stop_) {
        const auto hop = worker.receiver.Next(absl::Milliseconds(10));
        if (!hop || !PlainStepFromWire(hop->bytes, Limits(), kWidth, frame).ok()) continue;
        for (float& value : frame.hidden.ref().span()) value += add;
        sender->Send(PlainStepToWire(frame.step, frame.hidden.ref()), absl::Seconds(5))
            .IgnoreError();
      }
    });
  }
  ClusterPipelineOptions Options() {
    ClusterPipelineOptions options;
    options.clock = &clock_;
    options.capacity.epoch = kEpoch;
    options.capacity.limits = Limits();
    options.d_model = kWidth;
    options.estimate = [](size_t, size_t) { return absl::ZeroDuration(); };
    return options;
  }
  std::unique_ptr<HopSender> To(Endpoint& worker, NodeId peer) {
    return HopSender::Open(coordinator_.transport, worker.address(), peer);
  }
  absl::Status Submit(ClusterPipeline& pipeline, uint64_t id, size_t chain) {
    Step step;
    step.epoch = kEpoch;
    step.id = StepId{id};
    step.spans.push_back({SequenceId{id}, 0, 1});
    return pipeline.Submit(std::move(step), chain, Matrix(1, kWidth));
  }
  void TearDown() override {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

  Endpoint coordinator_{kCoordinatorNode}, first_{kFirst}, second_{kSecond};
  SystemClock clock_;
  HopInbox inbox_{coordinator_.receiver};
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> threads_;
};

TEST_F(SeveralWorkers, ChainsOfOneEpochComputeSideBySide) {
  coordinator_.receiver.SetUpstreams({kFirst, kSecond});
  first_.receiver.SetUpstream(kCoordinatorNode);
  second_.receiver.SetUpstream(kCoordinatorNode);
  Play(first_, coordinator_.address(), kCoordinatorNode, 1);
  Play(second_, coordinator_.address(), kCoordinatorNode, 2);
  ClusterPipelineOptions options = Options();
  options.capacity.chains = {{1, 100}, {1, 200}};
  std::vector<ChainEdges> edges;
  edges.push_back({To(first_, kFirst), {kFirst}});
  edges.push_back({To(second_, kSecond), {kSecond}});
  const auto pipeline = ClusterPipeline::Open(options, std::move(edges), {}, inbox_);
  ASSERT_TRUE(Probed(*pipeline));
  for (uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(Submit(*pipeline, 10 + i, i % 2).ok());
  EXPECT_TRUE(absl::IsAborted(pipeline->Submit(Step(), 0, Matrix(0, kWidth))));
  uint64_t next[2] = {10, 11};
  for (int i = 0; i < 8; ++i) {
    const std::optional<StepResult> result = pipeline->NextResult(absl::Seconds(20));
    ASSERT_TRUE(result.has_value());
    ASSERT_LT(result->chain, 2u);
    EXPECT_EQ(result->id.v, next[result->chain]) << "each chain keeps its order";
    next[result->chain] += 2;
    EXPECT_EQ(result->hidden.ref().row(0)[0], result->chain == 0 ? 1.F : 2.F);
  }
}

TEST_F(SeveralWorkers, PassesOnFramesBetweenWorkersThatCannotReachEachOther) {
  coordinator_.receiver.SetUpstreams({kFirst, kSecond});
  first_.receiver.SetUpstream(kCoordinatorNode);
  second_.receiver.SetUpstream(kCoordinatorNode);
  Play(first_, coordinator_.address(), kCoordinatorNode, 1);
  Play(second_, coordinator_.address(), kCoordinatorNode, 2);
  ClusterPipelineOptions options = Options();
  options.capacity.chains = {{2, 100}};
  std::vector<ChainEdges> edges;
  edges.push_back({To(first_, kFirst), {kFirst, kSecond}});
  std::vector<RelayedEdge> relayed;
  relayed.push_back({kFirst, To(second_, kSecond), 0});
  const auto pipeline =
      ClusterPipeline::Open(options, std::move(edges), std::move(relayed), inbox_);
  ASSERT_TRUE(Probed(*pipeline));
  for (uint64_t i = 0; i < 12; ++i) ASSERT_TRUE(Submit(*pipeline, i, 0).ok());
  for (uint64_t i = 0; i < 12; ++i) {
    const std::optional<StepResult> result = pipeline->NextResult(absl::Seconds(20));
    ASSERT_TRUE(result.has_value());
    EXPECT_EQ(result->id.v, i);
    EXPECT_EQ(result->hidden.ref().row(0)[0], 3.F);
  }
}

TEST_F(SeveralWorkers, ARelayedEdgeThatBreaksEndsTheEpoch) {
  coordinator_.receiver.SetUpstreams({kFirst, kSecond});
  first_.receiver.SetUpstream(kCoordinatorNode);
  Play(first_, coordinator_.address(), kCoordinatorNode, 1);
  ClusterPipelineOptions options = Options();
  options.capacity.chains = {{2, 100}};
  std::vector<ChainEdges> edges;
  edges.push_back({To(first_, kFirst), {kFirst, kSecond}});
  std::vector<RelayedEdge> relayed;
  second_.receiver.Shutdown();
  second_.server->Shutdown();
  relayed.push_back({kFirst, To(second_, kSecond), 0});
  const auto pipeline =
      ClusterPipeline::Open(options, std::move(edges), std::move(relayed), inbox_);
  for (uint64_t i = 0; i < 8 && Submit(*pipeline, i, 0).ok(); ++i) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  const std::optional<StepResult> result = pipeline->NextResult(absl::Seconds(20));
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE(absl::IsUnavailable(result->status));
  EXPECT_THAT(std::string(result->status.message()), HasSubstr("through the coordinator broke"));
}

}  // namespace
}  // namespace efedllm
