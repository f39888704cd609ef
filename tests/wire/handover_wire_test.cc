#include "wire/handover_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "wire/wire_cases.h"

namespace efedllm {
namespace {

HandOver SomeHandOver() { return {Epoch{4}, Epoch{5}, NodeId{77}, "10.0.0.7:7071"}; }

TEST(HandoverWire, KeepsAHandOver) {
  const absl::StatusOr<HandOver> out = FromWire(ToWire(SomeHandOver()));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->epoch, Epoch{4});
  EXPECT_EQ(out->next_epoch, Epoch{5});
  EXPECT_EQ(out->to, NodeId{77});
  EXPECT_EQ(out->address, "10.0.0.7:7071");
}

TEST(HandoverWire, RefusesABadHandOver) {
  using M = v1::HandOver;
  ExpectRefused<HandOver, M>(SomeHandOver(),
                             {{"epoch", [](M& m) { m.set_epoch(0); }},
                              {"epoch", [](M& m) { m.set_epoch(UINT64_MAX); }},
                              {"next_epoch", [](M& m) { m.set_next_epoch(4); }},
                              {"next_epoch", [](M& m) { m.set_next_epoch(UINT64_MAX); }},
                              {"to_node", [](M& m) { m.set_to_node(0); }},
                              {"address", [](M& m) { m.set_address(""); }},
                              {"address", [](M& m) { m.set_address(":7071"); }},
                              {"address", [](M& m) { m.set_address("unix:///x:80"); }}});
}

TEST(HandoverWire, KeepsItsEndAndMakesTheReasonPrintable) {
  const absl::StatusOr<HandedOver> out = FromWire(ToWire(HandedOver{Epoch{4}, 1 << 20, "\x1b["}));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->epoch, Epoch{4});
  EXPECT_EQ(out->bytes, uint64_t{1} << 20);
  EXPECT_EQ(out->message, "\\x1b[");
  using M = v1::HandedOver;
  ExpectRefused<HandedOver, M>(
      HandedOver{Epoch{4}, 1, ""},
      {{"epoch", [](M& m) { m.set_epoch(0); }}, {"bytes", [](M& m) { m.set_bytes(UINT64_MAX); }}});
}

TEST(HandoverWire, KeepsAPrefetchAndChecksItsTensors) {
  TensorSpec tensor;
  tensor.name = "blk.2.attn_q.weight";
  tensor.dtype = DType::kQ8_0;
  tensor.rows = 64;
  tensor.cols = 64;
  tensor.chunks = {Sha256({})};
  const Prefetch in{{tensor, tensor}};
  const absl::StatusOr<Prefetch> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->tensors, in.tensors);
  EXPECT_TRUE(FromWire(ToWire(Prefetch())).ok());
  using M = v1::Prefetch;
  ExpectRefused<Prefetch, M>(
      in, {{"tensor.rows", [](M& m) { m.mutable_tensors(1)->set_rows(0); }},
           {"chunk_sha256", [](M& m) { m.mutable_tensors(0)->clear_chunk_sha256(); }},
           {"number of tensors", [](M& m) {
              for (int i = 0; i < 1 << 15; ++i) m.add_tensors();
            }}});
}

}  // namespace
}  // namespace efedllm
