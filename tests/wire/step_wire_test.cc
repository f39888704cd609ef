#include "wire/step_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "efedllm/stage.pb.h"
#include "testing/plain_frame.h"
#include "wire/frame.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

// Where ValidMessage has them in its packed spans.
constexpr int kFirstPosition = 1, kFirstTokens = 2, kSecondSequence = 3, kSecondTokens = 5;
constexpr size_t kModel = 8;
constexpr StepLimits kLimits{
    .max_tokens = 16, .max_spans = 4, .max_trims = 4, .max_forks = 3, .max_position = 100};

Step SomeStep() {
  Step step;
  step.epoch = Epoch{3};
  step.id = StepId{77};
  step.spans = {{SequenceId{1}, 10, 2}, {SequenceId{900}, 0, 3}};
  step.trims = {{SequenceId{5}, 0}, {SequenceId{1}, 10}};
  step.forks = {{SequenceId{7}, SequenceId{1}, 9}};
  return step;
}

Matrix SomeHidden(size_t rows) {
  Matrix hidden(rows, kModel);
  float next = -1.5f;
  for (float& value : hidden.ref().span()) value = next += 0.37f;
  return hidden;
}

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  grpc::Slice slice;
  EXPECT_TRUE(buffer.DumpToSingleSlice(&slice).ok());
  return std::string(reinterpret_cast<const char*>(slice.begin()), slice.size());
}

v1::StepFrame ValidMessage() {
  v1::StepFrame message;
  EXPECT_TRUE(message.ParseFromString(ToString(PlainStepToWire(SomeStep(), SomeHidden(5).ref()))));
  message.clear_checksum();
  return message;
}

// Bytes before a checksum that is right.
absl::Status Parse(const std::string& bytes) {
  StepFrame frame;
  return PlainStepFromWire(SealFrame(bytes), kLimits, kModel, frame);
}
absl::Status Parse(const v1::StepFrame& message) { return Parse(message.SerializeAsString()); }

#define EXPECT_MALFORMED(status, text)                            \
  do {                                                            \
    const absl::Status result = (status);                         \
    EXPECT_EQ(result.code(), absl::StatusCode::kInvalidArgument); \
    EXPECT_THAT(std::string(result.message()), HasSubstr(text));  \
  } while (false)

TEST(StepWire, KeepsAStepAndEveryBitOfItsActivations) {
  const Matrix hidden = SomeHidden(5);
  StepFrame frame;
  ASSERT_TRUE(
      PlainStepFromWire(PlainStepToWire(SomeStep(), hidden.ref()), kLimits, kModel, frame).ok());
  EXPECT_EQ(frame.step.epoch, Epoch{3});
  EXPECT_EQ(frame.step.id, StepId{77});
  EXPECT_EQ(frame.step.spans, SomeStep().spans);
  EXPECT_EQ(frame.step.trims, SomeStep().trims);
  EXPECT_EQ(frame.step.forks, SomeStep().forks);
  EXPECT_TRUE(frame.failure.ok());
  ASSERT_EQ(frame.hidden.rows(), 5u);
  EXPECT_THAT(frame.hidden.ref().span(), ::testing::ElementsAreArray(hidden.ref().span()));
}

TEST(StepWire, KeepsWhatAReplayIs) {
  Step step = SomeStep();
  step.forget_others = true;
  step.replay_stages = {0, 5, kMaxStages - 1};
  step.trims[1].length = 90;  // it goes back over what is kept
  StepFrame frame;
  for (const size_t rows : {size_t{5}, size_t{0}}) {
    ASSERT_TRUE(
        PlainStepFromWire(PlainStepToWire(step, SomeHidden(rows).ref()), kLimits, kModel, frame)
            .ok());
    EXPECT_TRUE(frame.step.forget_others);
    EXPECT_EQ(frame.step.replay_stages, step.replay_stages);
    EXPECT_EQ(frame.step.trims, step.trims);
    EXPECT_EQ(frame.hidden.rows(), rows);
    EXPECT_EQ(frame.hidden.cols(), kModel);
  }
  ASSERT_TRUE(
      PlainStepFromWire(PlainStepToWire(SomeStep(), SomeHidden(5).ref()), kLimits, kModel, frame)
          .ok());
  EXPECT_FALSE(frame.step.forget_others);
  EXPECT_FALSE(frame.step.replay());
}

TEST(StepWire, RefusesReplaysThatAreNone) {
  v1::StepFrame message = ValidMessage();
  message.clear_activations();
  message.add_replay_stages(3);
  EXPECT_TRUE(Parse(message).ok());
  message.mutable_activations()->assign(4 * kModel * sizeof(float),
                                        '\0');  // of four rows, not five
  EXPECT_MALFORMED(Parse(message), "activations");
  message.clear_activations();
  message.add_replay_stages(3);
  EXPECT_MALFORMED(Parse(message), "not in order");
  message.set_replay_stages(1, 2);
  EXPECT_MALFORMED(Parse(message), "not in order");
  message.set_replay_stages(1, kMaxStages);
  EXPECT_MALFORMED(Parse(message), "stage 1024");
  message.clear_replay_stages();
  for (uint32_t i = 0; i < 2 * kMaxStages; ++i) message.add_replay_stages(200);
  EXPECT_MALFORMED(Parse(message), "claims");
  EXPECT_MALFORMED(Parse(std::string("\x5a\x01\x80", 3)), "cut off");
}

void ExpectDamaged(const std::string& bytes) {
  StepFrame frame;
  const absl::Status status = PlainStepFromWire(ToBuffer(bytes), kLimits, kModel, frame);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), "frame damaged on its way");
}

TEST(StepWire, SeesEveryDamagedByteBeforeItReadsAny) {
  const std::string bytes = ToString(PlainStepToWire(SomeStep(), SomeHidden(5).ref()));
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int bit : {0, 7}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      ExpectDamaged(damaged);
    }
    ExpectDamaged(bytes.substr(0, i));
  }
  ExpectDamaged(bytes + bytes.back());
  ExpectDamaged(ValidMessage().SerializeAsString());
}

TEST(StepWire, IsTheMessageOfTheProtoFile) {
  v1::StepFrame sealed;
  ASSERT_TRUE(sealed.ParseFromString(ToString(PlainStepToWire(SomeStep(), SomeHidden(5).ref()))));
  EXPECT_NE(sealed.checksum(), 0u);
  const v1::StepFrame message = ValidMessage();
  EXPECT_EQ(message.step(), 77u);
  EXPECT_EQ(message.codec(), 1u);
  EXPECT_EQ(message.activations().size(), 5 * kModel * sizeof(float));
  EXPECT_TRUE(Parse(message).ok());
}

TEST(StepWire, ReadsAFrameInManySlices) {
  const std::string bytes = ToString(PlainStepToWire(SomeStep(), SomeHidden(5).ref()));
  std::vector<grpc::Slice> slices;
  for (size_t i = 0; i < bytes.size(); i += 7) slices.emplace_back(bytes.substr(i, 7));
  StepFrame frame;
  ASSERT_TRUE(
      PlainStepFromWire(grpc::ByteBuffer(slices.data(), slices.size()), kLimits, kModel, frame)
          .ok());
  EXPECT_EQ(frame.step.tokens(), 5u);
}

TEST(StepWire, ReusesTheActivationsMemory) {
  StepFrame frame;
  const grpc::ByteBuffer bytes = PlainStepToWire(SomeStep(), SomeHidden(5).ref());
  ASSERT_TRUE(PlainStepFromWire(bytes, kLimits, kModel, frame).ok());
  const float* before = frame.hidden.row(0);
  ASSERT_TRUE(PlainStepFromWire(bytes, kLimits, kModel, frame).ok());
  EXPECT_EQ(frame.hidden.row(0), before);
}

TEST(StepWire, AStepMayOnlyTrim) {
  Step step;
  step.trims = {{SequenceId{4}, 0}};
  StepFrame frame;
  ASSERT_TRUE(
      PlainStepFromWire(PlainStepToWire(step, Matrix(0, kModel).ref()), kLimits, kModel, frame)
          .ok());
  EXPECT_EQ(frame.step.trims, step.trims);
  EXPECT_EQ(frame.hidden.rows(), 0u);
}

TEST(StepWire, PassesAFailureOnWithItsTrimsAndForks) {
  StepFrame frame;
  const absl::Status failure = absl::ResourceExhaustedError("no KV\npage left");
  ASSERT_TRUE(
      PlainStepFromWire(StepFailureToWire(SomeStep(), NodeId{12}, failure), kLimits, kModel, frame)
          .ok());
  EXPECT_EQ(frame.failure.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(frame.failure.message()), HasSubstr("page left"));
  EXPECT_EQ(frame.failed_node, NodeId{12});
  EXPECT_EQ(frame.hidden.rows(), 0u);
  EXPECT_EQ(frame.step.trims, SomeStep().trims);
  EXPECT_EQ(frame.step.forks, SomeStep().forks);
}

TEST(StepWire, AFailureOfAnyTextIsReadable) {
  StepFrame frame;
  const absl::Status failure = absl::InternalError(std::string(5000, '\xff'));
  ASSERT_TRUE(
      PlainStepFromWire(StepFailureToWire(SomeStep(), NodeId{1}, failure), kLimits, kModel, frame)
          .ok());
  EXPECT_EQ(frame.failure.code(), absl::StatusCode::kInternal);
}

TEST(StepWire, ALaterFrameForgetsAnEarlierFailure) {
  StepFrame frame;
  ASSERT_TRUE(PlainStepFromWire(StepFailureToWire(SomeStep(), NodeId{1}, absl::InternalError("x")),
                                kLimits, kModel, frame)
                  .ok());
  ASSERT_TRUE(
      PlainStepFromWire(PlainStepToWire(SomeStep(), SomeHidden(5).ref()), kLimits, kModel, frame)
          .ok());
  EXPECT_TRUE(frame.failure.ok());
}

// Decoding is many small frames: what stands around the activations counts.
TEST(StepWire, ATokenThatIsDecodedTakesAFewBytes) {
  StepLimits limits = kLimits;
  limits.max_position = 8192;
  limits.max_spans = limits.max_tokens;
  Step step;
  step.epoch = Epoch{20};
  step.id = StepId{100'000};
  for (uint64_t i = 0; i < 8; ++i) step.spans.push_back({SequenceId{5000 + 3 * i}, 4000, 1});
  const std::vector<StageTiming> timings(
      3, {NodeId(), 1'700'000'000'000'000, 20, 200, 4000, 20, 0x4005, 900});
  const grpc::ByteBuffer bytes = StepToWire(step, std::string(900, 'x'), CodecSetting(), timings);
  EXPECT_LE(bytes.Length(), 900 + 8 * 3 + 3 * 20 + 32u);
}

TEST(StepWire, TheLargestValidFrameIsWithinTheMaximum) {
  StepLimits limits = kLimits;
  limits.max_position = UINT32_MAX;
  Step step;
  step.epoch = Epoch{UINT64_MAX};
  step.id = StepId{UINT64_MAX};
  for (uint64_t i = 0; i < limits.max_spans; ++i) {
    step.spans.push_back({SequenceId{UINT64_MAX - i}, UINT32_MAX - 4, 4});
  }
  for (uint64_t i = 0; i < limits.max_trims; ++i) {
    step.trims.push_back({SequenceId{UINT64_MAX - 100 - i}, UINT32_MAX});
  }
  for (uint64_t i = 0; i < limits.max_forks; ++i) {
    step.forks.push_back({SequenceId{UINT64_MAX - 200 - i}, SequenceId{UINT64_MAX}, UINT32_MAX});
  }
  step.forget_others = true;
  for (uint32_t i = 0; i < kMaxStages; ++i) step.replay_stages.push_back(i);
  const std::vector<StageTiming> timings(
      kMaxStages, {NodeId{UINT64_MAX}, INT64_MIN, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX});
  const Matrix hidden(16, kModel);
  const grpc::ByteBuffer bytes = PlainStepToWire(step, hidden.ref(), timings);
  EXPECT_LE(bytes.Length(), MaxStepFrameBytes(limits, kModel));
  StepFrame frame;
  EXPECT_TRUE(PlainStepFromWire(bytes, limits, kModel, frame).ok());
  const grpc::ByteBuffer failure =
      StepFailureToWire(step, NodeId{UINT64_MAX}, absl::InternalError(std::string(9999, '\1')));
  EXPECT_LE(failure.Length(), MaxStepFrameBytes(limits, kModel));
}

TEST(StepWire, RefusesEveryTruncation) {
  std::string bytes = ToString(PlainStepToWire(SomeStep(), SomeHidden(5).ref()));
  bytes.resize(bytes.size() - kChecksumBytes);
  ASSERT_TRUE(Parse(bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    // A cut after a whole field is a message again: then the activations are missing.
    EXPECT_FALSE(Parse(bytes.substr(0, size)).ok()) << size;
  }
}

TEST(StepWire, RefusesAnOversizedFrame) {
  EXPECT_MALFORMED(Parse(std::string(MaxStepFrameBytes(kLimits, kModel) + 1, '\0')), "at most");
}

TEST(StepWire, RefusesAbsurdCountsAndSizes) {
  v1::StepFrame message = ValidMessage();
  for (uint64_t i = 0; i < 5; ++i) message.add_trims()->set_sequence(1000 + i);
  EXPECT_MALFORMED(Parse(message), "trims");
  message = ValidMessage();
  for (uint64_t i = 0; i < 5; ++i) message.add_forks()->set_sequence(1000 + i);
  EXPECT_MALFORMED(Parse(message), "forks");
  message = ValidMessage();
  for (size_t i = 0; i <= 6 * kMaxStages; ++i) message.add_timings(1);
  EXPECT_MALFORMED(Parse(message), "timings");
  message = ValidMessage();
  for (size_t i = 0; i < 2 * 5; ++i) message.add_spans(2);
  EXPECT_MALFORMED(Parse(message), "sequences");
  message = ValidMessage();
  message.set_spans(kFirstTokens, 17);
  EXPECT_MALFORMED(Parse(message), "tokens");
  message.set_spans(kFirstTokens, UINT32_MAX);
  message.set_spans(kSecondTokens, UINT32_MAX);
  EXPECT_MALFORMED(Parse(message), "malformed");
  // Half a sequence, half a timing, and a position beyond 32 bits.
  message = ValidMessage();
  message.add_spans(2);
  EXPECT_MALFORMED(Parse(message), "a sequence is not readable");
  message = ValidMessage();
  message.set_spans(kFirstPosition, uint64_t{1} << 40);
  EXPECT_MALFORMED(Parse(message), "a sequence is not readable");
  message = ValidMessage();
  message.add_timings(2);
  EXPECT_MALFORMED(Parse(message), "a timing is cut off");
  // A length that runs over the end: tag of field 6, then 2^32 - 1.
  EXPECT_MALFORMED(Parse(std::string("\x32\xff\xff\xff\xff\x0f", 6)), "claims");
  // A trim of more bytes than any trim has, and one whose last number is cut off.
  EXPECT_MALFORMED(Parse(std::string("\x22\x19", 2) + std::string(25, '\x01')), "claims");
  EXPECT_MALFORMED(Parse(std::string("\x22\x02\x08\x80", 4)), "not readable");
}

TEST(StepWire, RefusesPositionsThatOverflowOrLeaveTheContext) {
  v1::StepFrame message = ValidMessage();
  message.set_spans(kFirstPosition, 98 * 2 + 1);
  EXPECT_TRUE(Parse(message).ok());
  message.set_spans(kFirstPosition, 99 * 2 + 1);
  EXPECT_MALFORMED(Parse(message), "positions");
  message.set_spans(kFirstPosition, uint64_t{UINT32_MAX} * 2 + 1);
  EXPECT_MALFORMED(Parse(message), "positions");
}

TEST(StepWire, RefusesASpanWithoutTokens) {
  v1::StepFrame message = ValidMessage();
  message.set_spans(kFirstTokens, 0);
  EXPECT_MALFORMED(Parse(message), "no tokens");
}

TEST(StepWire, RefusesASequenceThatStandsInItTwice) {
  v1::StepFrame message = ValidMessage();
  message.set_spans(kSecondSequence, 0);  // as the one before
  EXPECT_MALFORMED(Parse(message), "twice");
  message = ValidMessage();
  message.mutable_trims(0)->set_sequence(message.trims(1).sequence());
  EXPECT_MALFORMED(Parse(message), "trimmed twice");
  message = ValidMessage();
  *message.add_forks() = message.forks(0);
  EXPECT_MALFORMED(Parse(message), "forked to twice");
}

TEST(StepWire, RefusesTrimsBeyondWhereTheSequenceGoesOn) {
  v1::StepFrame message = ValidMessage();
  message.mutable_trims(1)->set_length(11);
  EXPECT_MALFORMED(Parse(message), "where it goes on");
}

TEST(StepWire, RefusesForksFromNothing) {
  v1::StepFrame message = ValidMessage();
  message.mutable_forks(0)->set_tokens(0);
  EXPECT_MALFORMED(Parse(message), "fork of 0");
  message.mutable_forks(0)->set_tokens(101);
  EXPECT_MALFORMED(Parse(message), "fork of 101");
  message = ValidMessage();
  message.mutable_forks(0)->set_parent(7);
  EXPECT_MALFORMED(Parse(message), "own parent");
}

TEST(StepWire, KeepsTheStagesTimings) {
  const std::vector<StageTiming> timings = {{NodeId(), 1'700'000'000'000'000, 1, 2, 3, 4, 0, 900},
                                            {NodeId(), -5, UINT32_MAX, 0, 7, 0, 0, UINT32_MAX}};
  StepFrame frame;
  const grpc::ByteBuffer bytes = PlainStepToWire(SomeStep(), SomeHidden(5).ref(), timings);
  ASSERT_TRUE(PlainStepFromWire(bytes, kLimits, kModel, frame).ok());
  EXPECT_EQ(frame.timings, timings);
  ASSERT_TRUE(
      PlainStepFromWire(PlainStepToWire(SomeStep(), SomeHidden(5).ref()), kLimits, kModel, frame)
          .ok());
  EXPECT_TRUE(frame.timings.empty());
}

TEST(StepWire, RefusesUnknownCodecsAndFields) {
  v1::StepFrame message = ValidMessage();
  for (const uint32_t codec : {0u, 6u, 1u + 256u, UINT32_MAX}) {
    message.set_codec(codec);
    EXPECT_MALFORMED(Parse(message), "codec");
  }
  EXPECT_MALFORMED(Parse(ValidMessage().SerializeAsString() + "\x7a\x01x"), "unknown");
  EXPECT_MALFORMED(Parse(std::string("\x1b\x1b\x1b\x1b", 4)), "unknown");  // groups in groups
}

TEST(StepWire, RefusesActivationsOfAnotherSizeOrNotFinite) {
  v1::StepFrame message = ValidMessage();
  message.mutable_activations()->pop_back();
  EXPECT_MALFORMED(Parse(message), "activations");
  message.mutable_activations()->append("12345");
  EXPECT_MALFORMED(Parse(message), "activations");
  message.clear_activations();
  EXPECT_MALFORMED(Parse(message), "activations");
  Matrix hidden = SomeHidden(5);
  hidden.row(4)[7] = std::numeric_limits<float>::quiet_NaN();
  StepFrame frame;
  const absl::Status status =
      PlainStepFromWire(PlainStepToWire(SomeStep(), hidden.ref()), kLimits, kModel, frame);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("finite"));
}

TEST(StepWire, RefusesAFailureThatIsNone) {
  v1::StepFrame message = ValidMessage();
  message.mutable_failure()->set_code(13);
  EXPECT_MALFORMED(Parse(message), "activations too");
  message.clear_activations();
  EXPECT_TRUE(Parse(message).ok());
  for (const int32_t code : {0, -1, 17, INT32_MAX}) {
    message.mutable_failure()->set_code(code);
    EXPECT_MALFORMED(Parse(message), "code");
  }
  message.mutable_failure()->set_message(std::string(1200, 'x'));
  EXPECT_MALFORMED(Parse(message), "claims");
}

TEST(StepWire, RefusesAnEmptyBuffer) {
  EXPECT_MALFORMED(Parse(""), "codec");
  ExpectDamaged("");
  StepFrame frame;
  EXPECT_EQ(PlainStepFromWire(grpc::ByteBuffer(), kLimits, kModel, frame).code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace efedllm
