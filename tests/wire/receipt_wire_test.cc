#include "wire/receipt_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace efedllm {
namespace {

using testing::HasSubstr;

SignedReceipt SomeReceipt() {
  SignedReceipt receipt;
  receipt.receipt.node = NodeId{7};
  receipt.receipt.epoch = Epoch{3};
  receipt.receipt.stage = 1;
  receipt.receipt.layers = {2, 5};
  receipt.receipt.number = 9;
  receipt.receipt.manifest = RowDigest(1, "m");
  receipt.receipt.chunks.push_back({SequenceId{4}, 64, 64, {RowDigest(1, "i"), 2, 640}, {}});
  receipt.receipt.chunks.push_back({SequenceId{5}, 130, 1, {}, {RowDigest(1, "o"), 3, 12}});
  receipt.receipt.compute_micros = 11;
  receipt.receipt.wait_micros = 12;
  receipt.signature.fill(0xab);
  return receipt;
}

TEST(ReceiptWire, KeepsAReceipt) {
  const auto receipt = FromWire(NodeId{7}, ToWire(SomeReceipt()));
  ASSERT_TRUE(receipt.ok()) << receipt.status();
  EXPECT_EQ(*receipt, SomeReceipt());
}

TEST(ReceiptWire, RefusesWhatNoReceiptCanBe) {
  const auto refusal = [](auto change) {
    v1::Receipt message = ToWire(SomeReceipt());
    change(message);
    const auto receipt = FromWire(NodeId{7}, message);
    EXPECT_EQ(receipt.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(receipt.status().message());
  };
  EXPECT_THAT(refusal([](v1::Receipt& m) { m.clear_chunks(); }), HasSubstr("0 chunks"));
  EXPECT_THAT(refusal([](v1::Receipt& m) {
                while (m.chunks_size() <= static_cast<int>(kMaxReceiptChunks)) {
                  *m.add_chunks() = m.chunks(0);
                }
              }),
              HasSubstr("chunks"));
  EXPECT_THAT(refusal([](v1::Receipt& m) { m.mutable_chunks(0)->set_tokens(0); }),
              HasSubstr("0 positions"));
  EXPECT_THAT(refusal([](v1::Receipt& m) { m.mutable_chunks(0)->set_tokens(65); }),
              HasSubstr("65 positions"));
  EXPECT_THAT(refusal([](v1::Receipt& m) { m.mutable_chunks(0)->set_first_position(65); }),
              HasSubstr("from 65"));
  EXPECT_THAT(refusal([](v1::Receipt& m) {
                m.mutable_chunks(0)->set_first_position(UINT32_MAX);
                m.mutable_chunks(0)->set_tokens(UINT32_MAX);
              }),
              HasSubstr("positions"));
  EXPECT_THAT(refusal([](v1::Receipt& m) { m.set_manifest("short"); }), HasSubstr("manifest"));
  EXPECT_THAT(refusal([](v1::Receipt& m) { m.set_signature(std::string(65, 'x')); }),
              HasSubstr("signature"));
  EXPECT_THAT(refusal([](v1::Receipt& m) { m.mutable_chunks(1)->clear_outputs(); }),
              HasSubstr("outputs"));
  EXPECT_THAT(refusal([](v1::Receipt& m) { m.set_last_layer(2); }), HasSubstr("layers"));
}

TEST(ReceiptWire, KeepsAnAnswer) {
  ReceiptAnswer granted{Epoch{3}, 9, Signature(), ""};
  granted.countersignature->fill(3);
  EXPECT_EQ(*FromWire(ToWire(granted)), granted);
  const ReceiptAnswer refused{Epoch{3}, 9, std::nullopt, "number"};
  EXPECT_EQ(*FromWire(ToWire(refused)), refused);
  v1::ReceiptAnswer message = ToWire(granted);
  message.set_countersignature("x");
  EXPECT_EQ(FromWire(message).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ReceiptWire, KeepsARequestForRowsWithinBounds) {
  const KeptRowsRequest request{Epoch{1}, SequenceId{2}, 64, 100, true, 3};
  EXPECT_EQ(*KeptRowsRequestFromWire(KeptRowsRequestToWire(request)), request);
  for (const KeptRowsRequest& wrong :
       {KeptRowsRequest{Epoch{1}, SequenceId{2}, 0, 0, false, 0},
        KeptRowsRequest{Epoch{1}, SequenceId{2}, UINT32_MAX, 1, false, 0},
        KeptRowsRequest{Epoch{1}, SequenceId{2}, 0, kMaxKeptRowsTokens + 1, false, 0},
        KeptRowsRequest{Epoch{1}, SequenceId{2}, 0, 1, false, 1 << 20}}) {
    EXPECT_EQ(KeptRowsRequestFromWire(KeptRowsRequestToWire(wrong)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  const grpc::Slice junk(std::string(200, '\xff'));
  EXPECT_FALSE(KeptRowsRequestFromWire(grpc::ByteBuffer(&junk, 1)).ok());
}

TEST(ReceiptWire, KeepsRowsWithinBounds) {
  const std::vector<CodedRow> rows = {{1, "abc"}, {3, ""}, {2, std::string(100, 'x')}};
  EXPECT_EQ(*KeptRowsFromWire(KeptRowsToWire(rows), 3, 100), rows);
  EXPECT_FALSE(KeptRowsFromWire(KeptRowsToWire(rows), 2, 100).ok());
  EXPECT_FALSE(KeptRowsFromWire(KeptRowsToWire(rows), 3, 99).ok());
  EXPECT_FALSE(KeptRowsFromWire(KeptRowsToWire({}), 3, 99).ok());
}

// Where nobody vouches for the channel, a bit that flips on its way is not held against the node.
TEST(ReceiptWire, WhatWasDamagedOnItsWayIsKnownByItself) {
  grpc::Slice whole;
  ASSERT_TRUE(KeptRowsToWire({{1, "row"}}).DumpToSingleSlice(&whole).ok());
  std::string bytes(whole.begin(), whole.end());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= 4;
    const grpc::Slice damaged(bytes);
    EXPECT_EQ(KeptRowsFromWire(grpc::ByteBuffer(&damaged, 1), 3, 100).status().code(),
              absl::StatusCode::kDataLoss);
    bytes[i] ^= 4;
  }
}

TEST(ReceiptWire, BothEndsMakeTheSameManifestOfAnAssignment) {
  Assignment assignment;
  assignment.layers = {0, 2};
  assignment.codec = {CodecId::kInt8, 0};
  const Sha256Digest manifest = ManifestOf(assignment);
  assignment.epoch = Epoch{8};
  assignment.downstream_address = "elsewhere";
  EXPECT_EQ(ManifestOf(assignment), manifest);
  assignment.upstream_codec = {CodecId::kInt8, 0};
  EXPECT_NE(ManifestOf(assignment), manifest);
}

TEST(ReceiptWire, RowsAreDigestedOneByOne) {
  EncodedRows rows;
  rows.Add("a");
  rows.Add("bc");
  std::vector<RowSide> sides(5);
  DigestRows(rows, 3, sides);
  ASSERT_EQ(sides.size(), 2u);
  EXPECT_EQ(sides[1].digest, RowDigest(3, "bc"));
  EXPECT_EQ(sides[1].codec, 3u);
  EXPECT_EQ(sides[1].bytes, 2u);
}

}  // namespace
}  // namespace efedllm
