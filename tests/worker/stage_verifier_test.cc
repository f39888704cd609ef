#include "worker/stage_verifier.h"

#include <gtest/gtest.h>

#include <cstring>

#include "absl/time/clock.h"
#include "common/random.h"
#include "model/gguf_builder.h"
#include "model/model_file.h"
#include "model/stage_replay.h"
#include "model/temp_dir.h"
#include "model/tensor_hasher.h"
#include "model/tensor_loader.h"

namespace efedllm {
namespace {

constexpr uint32_t kPositions = 100, kWanted = 64;

class StageVerifierTest : public testing::Test {
 protected:
  StageVerifierTest() {
    const auto hasher = *TensorHasher::Create(file_, "");
    const auto tensors = *LoadStageTensors(config_, file_, {0, 3});
    EXPECT_TRUE(KeepTensors(tensors, *cache_, *hasher, [] { return false; }).ok());
    question_.config = config_;
    question_.layers = {1, 3};
    question_.tensors = *hasher->Hash(*StageTensors(config_, file_, {1, 3}));
    question_.through = 3;
    question_.positions = kPositions;
    question_.first_wanted = kWanted;
    inputs_ = Matrix(kPositions, config_.d_model);
    Random random(3);
    for (float& v : inputs_.ref().span()) v = static_cast<float>(random.Uniform() * 2 - 1);
  }

  std::unique_ptr<StageVerifier> Make(StageVerifierOptions options = {},
                                      const StageTamper* tamper = nullptr) {
    return std::make_unique<StageVerifier>(options, *cache_, clock_, tamper);
  }
  absl::StatusOr<ReplayReply> Say(StageVerifier& verifier, decltype(ReplayRequest::what) what,
                                  uint64_t number = 1) {
    const auto answer = verifier.Answer(ToWire(ReplayRequest{number, std::move(what)}));
    if (!answer.ok()) return answer.status();
    return ReplayReplyFromWire(*answer, 8, 1 << 20);
  }
  ReplayInputs Inputs(uint32_t first, uint32_t rows) {
    ReplayInputs inputs{first, ""};
    inputs.rows.assign(reinterpret_cast<const char*>(inputs_.row(first)),
                       rows * config_.d_model * sizeof(float));
    return inputs;
  }
  absl::StatusOr<Sha256Digest> Commitment(StageVerifier& verifier, uint64_t number = 1) {
    while (true) {
      const auto reply = Say(verifier, ReplayCommit(), number);
      if (!reply.ok()) return reply.status();
      if (reply->commitment) return *reply->commitment;
    }
  }
  absl::StatusOr<ReplayReply> WholeAnswer(StageVerifier& verifier) {
    EXPECT_TRUE(Say(verifier, question_).ok());
    EXPECT_TRUE(Say(verifier, Inputs(0, kPositions)).ok());
    const auto commitment = Commitment(verifier);
    if (!commitment.ok()) return commitment.status();
    auto reply = Say(verifier, ReplayReveal{question_.first_wanted});
    if (reply.ok()) {
      EXPECT_EQ(*commitment,
                ReplayCommitment(reply->nonce, reply->after_layer,
                                 Sha256({reinterpret_cast<const uint8_t*>(reply->rows.data()),
                                         reply->rows.size()})));
    }
    return reply;
  }
  // What is right, of these layers at all positions.
  Matrix Right(LayerRange layers) {
    Matrix rows = inputs_;
    StageReplay replay(
        {.config = config_}, [&](LayerRange l) { return LoadStageTensors(config_, file_, l); },
        compute_);
    const uint32_t positions[] = {kPositions};
    EXPECT_TRUE(replay.Run(layers, KvType::kF32, positions, rows.ref()).ok());
    return rows;
  }
  static std::string BytesFrom(const Matrix& rows, uint32_t first) {
    const ConstMatrixRef ref = rows.ref();
    return {reinterpret_cast<const char*>(ref.row(first)),
            (ref.rows - first) * ref.cols * sizeof(float)};
  }

  const std::string bytes_ = TinyLlama{.layers = 4, .rope_freqs = true}.Build();
  const ModelFile file_ = *ModelFile::Parse(BytesOf(bytes_));
  const ModelConfig config_ = *ModelConfigFromFile(file_);
  const TempDir dir_;
  const std::unique_ptr<WeightCache> cache_ = *WeightCache::Open(dir_.path() + "/weights");
  ManualClock clock_;
  Compute compute_ = *Compute::Create(0, "auto");
  ReplayQuestion question_;
  Matrix inputs_;
};

TEST_F(StageVerifierTest, ComputesWhatTheStageComputes) {
  const auto verifier = Make();
  const auto reply = WholeAnswer(*verifier);
  ASSERT_TRUE(reply.ok()) << reply.status();
  const Matrix right = Right({1, 3});
  EXPECT_EQ(reply->rows, BytesFrom(right, kWanted));
  ASSERT_EQ(reply->after_layer.size(), 2u);
  EXPECT_EQ(reply->after_layer[0], DigestOfValues(Right({1, 2}).ref()));
  EXPECT_EQ(reply->after_layer[1], DigestOfValues(right.ref()));
  // Once it has answered it takes the next one; and only as far as it is asked.
  question_.through = 2;
  question_.first_wanted = 0;
  const auto first_layer = WholeAnswer(*verifier);
  ASSERT_TRUE(first_layer.ok()) << first_layer.status();
  EXPECT_EQ(first_layer->rows, BytesFrom(Right({1, 2}), 0));
}

TEST_F(StageVerifierTest, TakesOneQuestionAtATimeUnlessItIsForgotten) {
  const auto verifier = Make();
  ASSERT_TRUE(Say(*verifier, question_, 1).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Say(*verifier, question_, 2).status()));
  EXPECT_TRUE(absl::IsNotFound(Say(*verifier, Inputs(0, 1), 2).status()));
  clock_.Advance(absl::Minutes(1));
  EXPECT_TRUE(Say(*verifier, question_, 2).ok());
  EXPECT_TRUE(absl::IsNotFound(Say(*verifier, Inputs(0, 1), 1).status()));
}

TEST_F(StageVerifierTest, TheAnswerComesAfterTheCommitment) {
  const auto verifier = Make();
  EXPECT_FALSE(Say(*verifier, ReplayCommit()).ok());
  ASSERT_TRUE(Say(*verifier, question_).ok());
  EXPECT_FALSE(Say(*verifier, ReplayCommit()).ok());
  EXPECT_FALSE(Say(*verifier, ReplayReveal{kWanted}).ok());
  ASSERT_TRUE(Say(*verifier, Inputs(0, kPositions)).ok());
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_FALSE(Say(*verifier, ReplayReveal{kWanted}).ok());
  ASSERT_TRUE(Commitment(*verifier).ok());
  EXPECT_FALSE(Say(*verifier, ReplayReveal{kWanted - 1}).ok());
  EXPECT_FALSE(Say(*verifier, ReplayReveal{kPositions}).ok());
  EXPECT_TRUE(Say(*verifier, ReplayReveal{kPositions - 1}).ok());
}

TEST_F(StageVerifierTest, RefusesInputsThatAreNotTheNextOnes) {
  const auto verifier = Make();
  ASSERT_TRUE(Say(*verifier, question_).ok());
  EXPECT_FALSE(Say(*verifier, Inputs(1, 1)).ok());
  EXPECT_FALSE(Say(*verifier, ReplayInputs{0, ""}).ok());
  EXPECT_FALSE(Say(*verifier, ReplayInputs{0, "123"}).ok());
  ASSERT_TRUE(Say(*verifier, Inputs(0, 10)).ok());
  EXPECT_FALSE(Say(*verifier, Inputs(0, 10)).ok());
  ReplayInputs many = Inputs(0, kPositions);
  many.first_position = 10;
  EXPECT_FALSE(Say(*verifier, many).ok());
  ASSERT_TRUE(Say(*verifier, Inputs(10, kPositions - 10)).ok());
  EXPECT_FALSE(Say(*verifier, Inputs(0, 1)).ok());
  EXPECT_TRUE(Commitment(*verifier).ok());
}

TEST_F(StageVerifierTest, SaysWhatItCantDo) {
  const auto verifier = Make();
  ReplayQuestion other = question_;
  other.tensors[0].chunks[0][0] ^= 1;
  EXPECT_TRUE(absl::IsNotFound(Say(*verifier, other).status()));
  other = question_;
  other.tensors.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(Say(*verifier, other).status()));
  inputs_.row(5)[7] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(absl::IsDataLoss(WholeAnswer(*verifier).status()));
  const auto small = Make({.memory_bytes = 10000});
  EXPECT_TRUE(absl::IsResourceExhausted(Say(*small, question_).status()));
}

TEST_F(StageVerifierTest, StopsWhatNobodyAsksAboutAnyMore) {
  std::atomic<bool> busy{true};
  const auto verifier =
      Make({.busy = [&] { return busy.load(); }, .patience = absl::InfiniteDuration()});
  ASSERT_TRUE(Say(*verifier, question_, 1).ok());
  ASSERT_TRUE(Say(*verifier, Inputs(0, kPositions), 1).ok());
  clock_.Advance(absl::Minutes(1));
  busy = false;
  while (!Say(*verifier, question_, 2).ok()) absl::SleepFor(absl::Milliseconds(5));
  ASSERT_TRUE(Say(*verifier, Inputs(0, kPositions), 2).ok());
  EXPECT_TRUE(Commitment(*verifier, 2).ok());
}

TEST_F(StageVerifierTest, EndsWhileItWaitsForAPause) {
  const auto verifier = Make({.busy = [] { return true; }, .patience = absl::Milliseconds(200)});
  ASSERT_TRUE(Say(*verifier, question_).ok());
  ASSERT_TRUE(Say(*verifier, Inputs(0, kPositions)).ok());
}

TEST_F(StageVerifierTest, ATestCanMakeItLie) {
  StageTamper tamper;
  tamper.replayed = [](LayerRange, ConstMatrixRef, MatrixRef rows) { rows.row(70)[3] += 1; };
  const auto verifier = Make({}, &tamper);
  const auto reply = WholeAnswer(*verifier);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_NE(reply->rows, BytesFrom(Right({1, 3}), kWanted));
}

TEST_F(StageVerifierTest, SurvivesRequestsWithFlippedBytes) {
  const auto verifier = Make();
  Random random(9);
  for (int i = 0; i < 3000; ++i) {
    decltype(ReplayRequest::what) what = ReplayCommit();
    if (i % 4 == 0) what = question_;
    if (i % 4 == 1) what = Inputs(0, 50);
    if (i % 4 == 2) what = ReplayReveal{static_cast<uint32_t>(random.Below(200))};
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(ToWire(ReplayRequest{random.Below(2), std::move(what)}).Dump(&slices).ok());
    std::string bytes(slices[0].begin(), slices[0].end());
    for (uint64_t flips = random.Below(4); flips > 0; --flips) {
      bytes[random.Below(bytes.size())] ^= static_cast<char>(1 << random.Below(8));
    }
    const grpc::Slice slice(bytes);
    verifier->Answer(grpc::ByteBuffer(&slice, 1)).IgnoreError();
    if (i % 100 == 0) clock_.Advance(absl::Minutes(1));
  }
}

}  // namespace
}  // namespace efedllm
