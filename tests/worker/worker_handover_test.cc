// KV that moves from one worker to another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/epochs_world.h"
#include "worker/stage_slots.h"

namespace efedllm {
namespace {

using ::testing::ElementsAreArray;

using WorkerHandOverTest = EpochsWorld;

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

TEST_F(WorkerHandOverTest, HandsItsKvOverBitForBit) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  RunFourPositions(*hop, 1);
  const Assignment next = Next(2, 1);
  Receiver receiver(coordinator_.NewNode());
  const auto stage =
      std::make_shared<HeldStage>(next, NodeId{5}, Reference(next), StageBases(), nullptr, clock_);
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

TEST_F(WorkerHandOverTest, AHandOverThatFailsSaysWhy) {
  const auto worker = ReadyWorker(Epoch{1});
  const auto hop = coordinator_.OpenHop();
  RunFourPositions(*hop, 1);
  const Receiver nothing_prepared(coordinator_.NewNode());
  coordinator_.HandOverTo(nothing_prepared.From(1, 2));
  const std::optional<HandedOver> handed_over = coordinator_.AwaitHandedOver();
  ASSERT_TRUE(handed_over);
  EXPECT_FALSE(handed_over->message.empty());
}

TEST_F(WorkerHandOverTest, TakesKvOverAndIsReadyOnceMore) {
  const Assignment assignment = Next(2, 1);
  StageSlots from;
  from.Prepare(std::make_shared<HeldStage>(Next(1, 0), NodeId{5}, Reference(assignment),
                                           StageBases(), nullptr, clock_));
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

TEST_F(WorkerHandOverTest, KvThatIsNotForItIsRefused) {
  const auto worker = ReadyWorker(Epoch{2});
  const auto sender = coordinator_.OpenKv(Epoch{3});
  EXPECT_TRUE(absl::IsFailedPrecondition(sender->Finish()));
  const auto garbage = coordinator_.OpenKv(Epoch{2});
  const grpc::Slice bytes(std::string(3000, '\xee'));
  while (garbage->Send(grpc::ByteBuffer(&bytes, 1)).ok()) {
  }
  EXPECT_FALSE(garbage->Finish().ok());
}

}  // namespace
}  // namespace efedllm
