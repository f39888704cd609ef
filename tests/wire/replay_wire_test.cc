#include "wire/replay_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "efedllm/replay.pb.h"
#include "wire/frame.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

ReplayQuestion SomeQuestion() {
  ReplayQuestion question;
  question.config.architecture = "llama";
  question.config.name = "tiny";
  question.config.layers = 4;
  question.config.d_model = 32;
  question.config.heads = 4;
  question.config.kv_heads = 2;
  question.config.head_dim = 8;
  question.config.d_ffn = 64;
  question.config.vocab = 20;
  question.config.context = 128;
  question.config.rope.dims = 8;
  question.config.rope.base = 10000;
  question.config.norm_epsilon = 1e-5f;
  question.config.attention_scale = 0.25f;
  question.layers = {1, 3};
  TensorSpec tensor;
  tensor.name = "blk.1.attn_norm.weight";
  tensor.cols = 32;
  tensor.chunks.resize(1);
  question.tensors = {tensor};
  question.through = 2;
  question.kv_type = KvType::kF16;
  question.positions = 100;
  question.first_wanted = 64;
  return question;
}

TEST(ReplayWire, KeepsRequestsAndReplies) {
  for (const ReplayRequest& request :
       {ReplayRequest{7, SomeQuestion()}, ReplayRequest{7, ReplayInputs{3, "abcd"}},
        ReplayRequest{7, ReplayCommit()}, ReplayRequest{7, ReplayReveal{64}}}) {
    const auto read = ReplayRequestFromWire(ToWire(request));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, request);
  }
  ReplayReply reply;
  EXPECT_EQ(*ReplayReplyFromWire(ToWire(reply), 0, 0), reply);
  reply.commitment = Sha256({});
  reply.nonce.fill(3);
  reply.after_layer = {Sha256Digest(), Sha256({})};
  reply.rows = "12345678";
  EXPECT_EQ(*ReplayReplyFromWire(ToWire(reply), 2, 8), reply);
}

TEST(ReplayWire, RefusesWhatNoQuestionCanBe) {
  const std::vector<std::pair<const char*, std::function<void(ReplayQuestion&)>>> cases = {
      {"last_layer", [](auto& q) { q.layers.last = 5; }},
      {"first_layer", [](auto& q) { q.layers.first = 3; }},
      {"through_layer", [](auto& q) { q.through = 1; }},
      {"through_layer", [](auto& q) { q.through = 4; }},
      {"number of tensors", [](auto& q) { q.tensors.clear(); }},
      {"number of tensors", [](auto& q) { q.tensors.resize(50, q.tensors[0]); }},
      {"tensor", [](auto& q) { q.tensors[0].chunks.clear(); }},
      {"kv_type", [](auto& q) { q.kv_type = static_cast<KvType>(77); }},
      {"positions", [](auto& q) { q.positions = 129; }},
      {"positions", [](auto& q) { q.positions = 0; }},
      {"first_wanted", [](auto& q) { q.first_wanted = 100; }},
      {"", [](auto& q) { q.config.heads = 0; }}};
  for (const auto& [field, change] : cases) {
    ReplayRequest request{1, SomeQuestion()};
    change(std::get<ReplayQuestion>(request.what));
    const absl::Status status = ReplayRequestFromWire(ToWire(request)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  }
  EXPECT_FALSE(ReplayRequestFromWire(grpc::ByteBuffer()).ok());
  const grpc::Slice garbage("\xff\xff\xff");
  EXPECT_FALSE(ReplayRequestFromWire(grpc::ByteBuffer(&garbage, 1)).ok());
}

TEST(ReplayWire, RefusesRepliesOfOtherSizes) {
  const auto refused = [](auto change) {
    ReplayReply good;
    good.after_layer.resize(2);
    v1::ReplayReply message;
    EXPECT_TRUE(OpenMessage(ToWire(good), message).ok());
    change(message);
    return ReplayReplyFromWire(SealMessage(message), 2, 16).status().code() ==
           absl::StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& m) { m.set_commitment("short"); }));
  EXPECT_TRUE(refused([](auto& m) { m.set_nonce("short"); }));
  EXPECT_TRUE(refused([](auto& m) { m.set_after_layer(std::string(96, 'x')); }));
  EXPECT_TRUE(refused([](auto& m) { m.set_after_layer(std::string(33, 'x')); }));
  EXPECT_TRUE(refused([](auto& m) { m.set_rows(std::string(17, 'x')); }));
  EXPECT_TRUE(refused([](auto& m) { m.set_rows(std::string(1 << 20, 'x')); }));
}

TEST(ReplayWire, ACommitmentDependsOnAllThatIsShown) {
  const ReplayNonce nonce = {1};
  const Sha256Digest a = {1}, b = {2};
  const Sha256Digest commitment = ReplayCommitment(nonce, {a, b}, a);
  EXPECT_NE(commitment, ReplayCommitment({2}, {a, b}, a));
  EXPECT_NE(commitment, ReplayCommitment(nonce, {b, a}, a));
  EXPECT_NE(commitment, ReplayCommitment(nonce, {a, b}, b));
}

}  // namespace
}  // namespace efedllm
