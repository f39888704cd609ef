#include "coordinator/network_stage_replayer.h"

#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/gguf_builder.h"
#include "model/model_config.h"
#include "model/model_file.h"
#include "model/tensor_hasher.h"
#include "model/weights.h"
#include "net/audit_call.h"
#include "wire/replay_wire.h"

namespace efedllm {
namespace {

constexpr NodeId kNode{5};

// A node that answers with the rows it was sent, each value one more; its answers may be spoilt.
class FakeVerifier {
 public:
  FakeVerifier() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    server_.Register(builder);
    grpc_ = builder.BuildAndStart();
    server_.SetHandler([this](const grpc::ByteBuffer& bytes) { return Answer(bytes); });
  }
  ~FakeVerifier() { grpc_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  std::function<void(ReplayReply&)> spoil_commitment, spoil_reveal;
  std::function<absl::Status(const ReplayRequest&)> refuse;
  ReplayQuestion asked;

 private:
  absl::StatusOr<grpc::ByteBuffer> Answer(const grpc::ByteBuffer& bytes) {
    auto request = ReplayRequestFromWire(bytes);
    EXPECT_TRUE(request.ok()) << request.status();
    if (refuse) {
      const absl::Status refused = refuse(*request);
      if (!refused.ok()) return refused;
    }
    ReplayReply reply;
    if (auto* question = std::get_if<ReplayQuestion>(&request->what)) {
      asked = *question;
      rows_.clear();
    } else if (auto* inputs = std::get_if<ReplayInputs>(&request->what)) {
      const auto* values = reinterpret_cast<const float*>(inputs->rows.data());
      for (size_t i = 0; i < inputs->rows.size() / sizeof(float); ++i) {
        rows_.push_back(values[i] + 1);
      }
    } else if (auto* reveal = std::get_if<ReplayReveal>(&request->what)) {
      reply.nonce = nonce_;
      reply.after_layer = digests();
      const ConstMatrixRef piece = From(reveal->first_position);
      const size_t most = kReplayPieceBytes / (piece.cols * sizeof(float));
      reply.rows.assign(reinterpret_cast<const char*>(piece.data),
                        std::min(most, piece.rows) * piece.cols * sizeof(float));
      if (spoil_reveal) spoil_reveal(reply);
    } else {
      reply.commitment =
          ReplayCommitment(nonce_, digests(), DigestOfValues(From(asked.first_wanted)));
      if (spoil_commitment) spoil_commitment(reply);
    }
    return ToWire(reply);
  }
  std::vector<Sha256Digest> digests() const {
    return std::vector<Sha256Digest>(asked.computed().size());
  }
  ConstMatrixRef From(uint32_t first) const {
    const size_t cols = asked.config.d_model;
    return {rows_.data() + first * cols, rows_.size() / cols - first, cols};
  }

  const Transport transport_ = Transport::Insecure(kNode);
  AuditServer server_{transport_, AuditMethod::kReplay};
  int port_ = 0;
  std::unique_ptr<grpc::Server> grpc_;
  const ReplayNonce nonce_ = {9};
  std::vector<float> rows_;
};

class NetworkStageReplayerTest : public testing::Test {
 protected:
  NetworkStageReplayerTest() {
    const std::string bytes = TinyLlama{.layers = 4}.Build();
    const ModelFile file = *ModelFile::Parse(BytesOf(bytes));
    stage_.config = *ModelConfigFromFile(file);
    stage_.config.context = 20000;
    stage_.layers = {1, 3};
    stage_.tensors =
        *(*TensorHasher::Create(file, ""))->Hash(*StageTensors(stage_.config, file, stage_.layers));
  }
  absl::StatusOr<StageReplayAnswer> Ask(uint32_t positions = 10, uint32_t first_wanted = 4) {
    inputs_ = Matrix(positions, stage_.config.d_model);
    float next = 0;
    for (float& value : inputs_.ref().span()) value = next += 1;
    NetworkStageReplayer replayer(transport_, {.patience = absl::Seconds(1)});
    return replayer.Ask(kNode, verifier_.address(), {stage_, 3, inputs_.ref(), first_wanted});
  }

  const Transport transport_ = Transport::Insecure(NodeId{0});
  FakeVerifier verifier_;
  Assignment stage_;
  Matrix inputs_;
};

TEST_F(NetworkStageReplayerTest, GetsAnAnswerPieceByPiece) {
  const uint32_t positions = 10000;  // more than a piece, in both directions
  const auto answer = Ask(positions, 10);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(verifier_.asked.positions, positions);
  EXPECT_EQ(verifier_.asked.tensors, stage_.tensors);
  EXPECT_EQ(answer->after_layer.size(), 2u);
  ASSERT_EQ(answer->rows.rows(), positions - 10);
  const ConstMatrixRef rows = answer->rows.ref();
  EXPECT_EQ(rows.row(0)[3], inputs_.row(10)[3] + 1);
  EXPECT_EQ(rows.row(rows.rows - 1)[3], inputs_.row(positions - 1)[3] + 1);
}

TEST_F(NetworkStageReplayerTest, WhatWasNotCommittedToIsNoAnswer) {
  verifier_.spoil_commitment = [](ReplayReply& reply) { (*reply.commitment)[0] ^= 1; };
  EXPECT_TRUE(absl::IsDataLoss(Ask().status()));
  verifier_.spoil_commitment = nullptr;
  const std::vector<std::function<void(ReplayReply&)>> spoilt = {
      [](ReplayReply& reply) { reply.rows[5] ^= 1; },
      [](ReplayReply& reply) { reply.nonce[5] ^= 1; },
      [](ReplayReply& reply) { reply.after_layer[1][0] ^= 1; },
      [](ReplayReply& reply) { reply.after_layer.pop_back(); },
      [](ReplayReply& reply) { reply.rows.clear(); },
      [](ReplayReply& reply) { reply.rows.pop_back(); },
      [](ReplayReply& reply) { reply.rows += std::string(reply.rows); }};
  for (const auto& spoil : spoilt) {
    verifier_.spoil_reveal = spoil;
    EXPECT_TRUE(absl::IsDataLoss(Ask().status()));
  }
  verifier_.spoil_reveal = nullptr;
  EXPECT_TRUE(Ask().ok());
}

TEST_F(NetworkStageReplayerTest, WhoNeverCommitsIsNotWaitedForForEver) {
  verifier_.spoil_commitment = [](ReplayReply& reply) { reply.commitment.reset(); };
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask().status()));
}

TEST_F(NetworkStageReplayerTest, ARefusalIsNoAnswerWhateverItSays) {
  verifier_.refuse = [](const ReplayRequest&) { return absl::InternalError("\xff\x01 no"); };
  const absl::Status status = Ask().status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_EQ(status.message().find('\xff'), absl::string_view::npos);
  verifier_.refuse = [](const ReplayRequest&) { return absl::UnavailableError("later"); };
  EXPECT_TRUE(absl::IsUnavailable(Ask().status()));
}

TEST_F(NetworkStageReplayerTest, OnlyTheCoordinatorIsAnswered) {
  const Transport other = Transport::Insecure(NodeId{77});
  AuditCaller caller(other, verifier_.address(), kNode, AuditMethod::kReplay);
  EXPECT_TRUE(absl::IsPermissionDenied(
      caller.Ask(ToWire(ReplayRequest{1, ReplayCommit()}), absl::Seconds(5)).status()));
}

}  // namespace
}  // namespace efedllm
