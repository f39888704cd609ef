#include "wire/cluster_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "wire/wire_cases.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

Hello SomeHello() {
  Hello hello;
  hello.engine_version = "0.1.0";
  hello.name = "büro-7";
  hello.profile = {.threads = 8,
                   .memory_bytes = uint64_t{8} << 30,
                   .read_bytes_per_second = 2e10,
                   .int8_ops_per_second = 3e11,
                   .f32_flops_per_second = 1e11};
  hello.hop_address = ":41234";
  return hello;
}

Assignment SomeAssignment() {
  Assignment assignment;
  assignment.epoch = Epoch{4};
  assignment.layers = {2, 5};
  ModelConfig& config = assignment.config;
  config.architecture = "llama";
  config.name = "Seedling";
  config.layers = 6;
  config.d_model = 64;
  config.heads = 8;
  config.kv_heads = 4;
  config.head_dim = 8;
  config.d_ffn = 172;
  config.vocab = 512;
  config.context = 512;
  config.rope.dims = 8;
  config.attention_scale = 0.25f;
  TensorSpec tensor;
  tensor.name = "blk.2.attn_q.weight";
  tensor.dtype = DType::kQ8_0;
  tensor.rows = 64;
  tensor.cols = 64;
  tensor.chunks = {Sha256({})};
  assignment.tensors = {tensor};
  assignment.kv_tokens = 4096;
  assignment.limits.max_position = 512;
  assignment.kv_type = KvType::kF16;
  assignment.upstream = NodeId{0};
  assignment.downstream = NodeId{99};
  assignment.downstream_address = "10.0.0.7:7071";
  assignment.continues = Epoch{3};
  assignment.stage = 1;
  assignment.keep_outputs = true;
  return assignment;
}

TEST(ClusterWire, KeepsAHello) {
  const absl::StatusOr<Hello> hello = FromWire(ToWire(SomeHello()));
  ASSERT_TRUE(hello.ok()) << hello.status();
  EXPECT_EQ(hello->name, "büro-7");
  EXPECT_EQ(hello->engine_version, "0.1.0");
  EXPECT_EQ(hello->numerics_id, kNumericsId);
  EXPECT_EQ(hello->hop_address, ":41234");
  EXPECT_EQ(hello->profile.threads, 8u);
  EXPECT_EQ(hello->profile.memory_bytes, uint64_t{8} << 30);
  EXPECT_EQ(hello->profile.read_bytes_per_second, 2e10);
  EXPECT_EQ(hello->profile.int8_ops_per_second, 3e11);
  EXPECT_EQ(hello->profile.f32_flops_per_second, 1e11);
}

TEST(ClusterWire, AnotherProtocolVersionSaysWhichSideToUpdate) {
  v1::Hello message = ToWire(SomeHello());
  message.set_hop_address("no address in that version");
  message.set_protocol_version(kProtocolVersion + 1);
  absl::Status status = FromWire(message).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("update eFedLLM on the coordinator"));
  message.set_protocol_version(0);
  status = FromWire(message).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("update eFedLLM on the worker"));
}

TEST(ClusterWire, RefusesABadHello) {
  using M = v1::Hello;
  ExpectRefused<Hello, M>(
      SomeHello(),
      {{"name", [](M& m) { m.set_name(std::string(65, 'x')); }},
       {"name", [](M& m) { m.set_name("a\nb"); }},
       {"engine_version", [](M& m) { m.set_engine_version("\x1b"); }},
       {"hop_address", [](M& m) { m.set_hop_address(""); }},
       {"hop_address", [](M& m) { m.set_hop_address("host"); }},
       {"hop_address", [](M& m) { m.set_hop_address("host:0"); }},
       {"hop_address", [](M& m) { m.set_hop_address("host:65536"); }},
       {"hop_address", [](M& m) { m.set_hop_address("unix:///x:80"); }},
       {"hop_address", [](M& m) { m.set_hop_address(std::string(400, 'h') + ":80"); }},
       {"threads", [](M& m) { m.mutable_profile()->set_threads(0); }},
       {"threads", [](M& m) { m.mutable_profile()->set_threads(UINT32_MAX); }},
       {"memory", [](M& m) { m.mutable_profile()->set_memory_bytes(UINT64_MAX); }},
       {"read", [](M& m) { m.mutable_profile()->set_read_bytes_per_second(NAN); }},
       {"int8", [](M& m) { m.mutable_profile()->set_int8_ops_per_second(-1); }},
       {"f32", [](M& m) { m.mutable_profile()->set_f32_flops_per_second(INFINITY); }}});
}

TEST(ClusterWire, KeepsAnAssignment) {
  const Assignment in = SomeAssignment();
  const absl::StatusOr<Assignment> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->epoch, in.epoch);
  EXPECT_EQ(out->layers, in.layers);
  EXPECT_EQ(out->config, in.config);
  EXPECT_EQ(out->tensors, in.tensors);
  EXPECT_EQ(out->kv_tokens, in.kv_tokens);
  EXPECT_EQ(out->limits.max_position, 512u);
  EXPECT_EQ(out->downstream, in.downstream);
  EXPECT_EQ(out->downstream_address, in.downstream_address);
  EXPECT_EQ(out->codec, CodecSetting());
  EXPECT_EQ(out->kv_type, KvType::kF16);
  EXPECT_EQ(out->continues, in.continues);
  EXPECT_EQ(out->stage, 1u);
  EXPECT_TRUE(out->keep_outputs);
}

TEST(ClusterWire, KeepsEveryFactOfAModel) {
  Assignment in = SomeAssignment();
  in.config.architecture = "qwen3moe";
  in.config.experts = 8;
  in.config.experts_used = 2;
  in.config.attention_soft_cap = 50;
  in.config.final_soft_cap = 30;
  in.config.window = 512;
  in.config.window_period = 6;
  in.config.rope = {.dims = 6,
                    .base = 1e6f,
                    .scaling = RopeScaling::kYarn,
                    .factor = 4,
                    .original_context = 64,
                    .beta_fast = 30,
                    .beta_slow = 2,
                    .magnitude = 1.1f};
  const absl::StatusOr<Assignment> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->config, in.config);
}

TEST(ClusterWire, RefusesABadAssignment) {
  using M = v1::Assignment;
  ExpectRefused<Assignment, M>(
      SomeAssignment(),
      {{"epoch", [](M& m) { m.set_epoch(0); }},
       {"last_layer", [](M& m) { m.set_last_layer(7); }},
       {"first_layer", [](M& m) { m.set_first_layer(5); }},
       {"width", [](M& m) { m.mutable_model()->set_d_model(UINT32_MAX); }},
       {"head", [](M& m) { m.mutable_model()->set_heads(0); }},
       {"rope base", [](M& m) { m.mutable_model()->mutable_rope()->set_base(NAN); }},
       {"rope scaling", [](M& m) { m.mutable_model()->mutable_rope()->set_scaling(256); }},
       {"rope scaling factor", [](M& m) { m.mutable_model()->mutable_rope()->set_factor(0); }},
       {"attention scale", [](M& m) { m.mutable_model()->set_attention_scale(-INFINITY); }},
       {"soft cap", [](M& m) { m.mutable_model()->set_final_soft_cap(NAN); }},
       {"window", [](M& m) { m.mutable_model()->set_window(UINT32_MAX); }},
       {"experts", [](M& m) { m.mutable_model()->set_architecture("qwen3moe"); }},
       {"expert count", [](M& m) { m.mutable_model()->set_experts(UINT32_MAX); }},
       {"model.name", [](M& m) { m.mutable_model()->set_name(std::string(2000, 'x')); }},
       {"number of tensors", [](M& m) { m.clear_tensors(); }},
       {"number of tensors",
        [](M& m) {
          for (int i = 0; i < 100; ++i) m.add_tensors();
        }},
       {"dtype", [](M& m) { m.mutable_tensors(0)->set_dtype(12345); }},
       {"tensor.rows", [](M& m) { m.mutable_tensors(0)->set_rows(0); }},
       {"tensor.rows", [](M& m) { m.mutable_tensors(0)->set_rows(UINT64_MAX); }},
       {"tensor.cols", [](M& m) { m.mutable_tensors(0)->set_cols(65); }},
       {"tensor.name", [](M& m) { m.mutable_tensors(0)->set_name("../\n"); }},
       {"chunk_sha256", [](M& m) { m.mutable_tensors(0)->clear_chunk_sha256(); }},
       {"chunk_sha256", [](M& m) { m.mutable_tensors(0)->mutable_chunk_sha256()->append("x"); }},
       {"kv_tokens", [](M& m) { m.set_kv_tokens(0); }},
       {"kv_tokens", [](M& m) { m.set_kv_tokens(UINT64_MAX); }},
       {"max_tokens", [](M& m) { m.mutable_limits()->set_max_tokens(UINT32_MAX); }},
       {"max_spans", [](M& m) { m.mutable_limits()->set_max_spans(0); }},
       {"max_trims", [](M& m) { m.mutable_limits()->set_max_trims(UINT32_MAX); }},
       {"max_forks", [](M& m) { m.mutable_limits()->set_max_forks(UINT32_MAX); }},
       {"max_position", [](M& m) { m.mutable_limits()->set_max_position(0); }},
       {"downstream_address", [](M& m) { m.set_downstream_address("nowhere"); }},
       {"codec", [](M& m) { m.set_codec(9); }},
       {"kv_type", [](M& m) { m.set_kv_type(3); }},
       {"continues", [](M& m) { m.set_continues(4); }},
       {"continues", [](M& m) { m.set_continues(UINT64_MAX); }},
       {"stage", [](M& m) { m.set_stage(6); }},
       {"q8_0", [](M& m) { m.set_kv_type(static_cast<uint32_t>(KvType::kQ8_0)); }}});
}

TEST(ClusterWire, KeepsAStageReport) {
  StageReport in;
  in.epoch = Epoch{7};
  in.state = StageState::kFailed;
  in.bytes_total = 100;
  in.bytes_held = 60;
  in.bytes_fetched = 50;
  in.message = "chunk 3 is wrong";
  in.kept = true;
  in.fault = StageFault::kDownstream;
  const absl::StatusOr<StageReport> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(out->epoch, in.epoch);
  EXPECT_EQ(out->state, in.state);
  EXPECT_EQ(out->bytes_held, 60u);
  EXPECT_EQ(out->bytes_fetched, 50u);
  EXPECT_EQ(out->bytes_total, 100u);
  EXPECT_EQ(out->message, in.message);
  EXPECT_TRUE(out->kept);
  EXPECT_EQ(out->fault, StageFault::kDownstream);
}

TEST(ClusterWire, RefusesABadStageReport) {
  using M = v1::StageStatus;
  ExpectRefused<StageReport, M>(
      StageReport{.bytes_held = 1, .bytes_total = 2},
      {{"state", [](M& m) { m.set_state(v1::StageStatus::STATE_UNSPECIFIED); }},
       {"state", [](M& m) { m.set_state(static_cast<v1::StageStatus::State>(77)); }},
       {"bytes_total", [](M& m) { m.set_bytes_total(UINT64_MAX); }},
       {"bytes_held", [](M& m) { m.set_bytes_held(3); }},
       {"bytes_fetched", [](M& m) { m.set_bytes_fetched(2); }},
       {"fault", [](M& m) { m.set_fault(static_cast<v1::StageStatus::Fault>(3)); }},
       {"fault", [](M& m) { m.set_fault(static_cast<v1::StageStatus::Fault>(-1)); }}});
}

TEST(ClusterWire, AStageReportsMessageBecomesPrintable) {
  const absl::StatusOr<StageReport> out = FromWire(ToWire(StageReport{.message = "\x1b[31mred"}));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(out->message, "\\x1b[31mred");
}

TEST(ClusterWire, KeepsCountersAndRefusesAbsurdOnes) {
  StageCounters in;
  in.epoch = Epoch{2};
  in.steps = 10;
  in.tokens = 20;
  in.compute_micros = 30;
  in.bytes_in = 40;
  in.bytes_out = 50;
  in.sequences = 3;
  in.kv_tokens_used = 64;
  in.kv_tokens_total = 128;
  const absl::StatusOr<StageCounters> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok());
  EXPECT_EQ(out->steps, 10u);
  EXPECT_EQ(out->tokens, 20u);
  EXPECT_EQ(out->compute_micros, 30u);
  EXPECT_EQ(out->bytes_in, 40u);
  EXPECT_EQ(out->bytes_out, 50u);
  EXPECT_EQ(out->sequences, 3u);
  EXPECT_EQ(out->kv_tokens_used, 64u);
  EXPECT_EQ(out->kv_tokens_total, 128u);
  using M = v1::Heartbeat;
  ExpectRefused<StageCounters, M>(in,
                                  {{"steps", [](M& m) { m.set_steps(UINT64_MAX); }},
                                   {"bytes_out", [](M& m) { m.set_bytes_out(UINT64_MAX); }},
                                   {"kv_tokens_used", [](M& m) { m.set_kv_tokens_used(129); }}});
}

}  // namespace
}  // namespace efedllm
