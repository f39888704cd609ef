#include "worker/receipt_writer.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "common/file.h"

namespace efedllm {
namespace {

SigningKey NewKey(const std::string& name) {
  return SigningKey::OpenOrCreate(testing::TempDir() + "/receipt_writer_test_" + name + ".key")
      .value();
}

class ReceiptWriterTest : public testing::Test {
 protected:
  ReceiptWriterTest() { std::remove(path_.c_str()); }

  static std::vector<ClosedChunk> Chunks(size_t count) {
    std::vector<ClosedChunk> chunks(count);
    for (ClosedChunk& chunk : chunks) chunk.claim.tokens = 1;
    return chunks;
  }
  void Add(size_t chunks, uint64_t epoch = 1) {
    writer_.Add({Epoch{epoch}, 2, {4, 8}, RowDigest(1, "manifest")}, Chunks(chunks),
                absl::Milliseconds(3), absl::Milliseconds(1));
  }
  ReceiptAnswer Granted(const SignedReceipt& receipt) const {
    return {receipt.receipt.epoch, receipt.receipt.number,
            coordinator_.Sign(CountersignedBytes(receipt)), ""};
  }

  const std::string path_ = testing::TempDir() + "/receipt_writer_test.receipts";
  const SigningKey coordinator_ = NewKey("coordinator");
  ManualClock clock_;
  ReceiptWriter writer_{NewKey("node"), clock_, path_};
};

TEST_F(ReceiptWriterTest, GathersChunksForASecond) {
  Add(2);
  EXPECT_FALSE(writer_.Next());
  Add(1);
  clock_.Advance(kReceiptInterval);
  const auto receipt = writer_.Next();
  ASSERT_TRUE(receipt);
  EXPECT_TRUE(VerifyReceipt(*receipt, writer_.public_key()));
  EXPECT_EQ(receipt->receipt.number, 0u);
  EXPECT_EQ(receipt->receipt.chunks.size(), 3u);
  EXPECT_EQ(receipt->receipt.stage, 2u);
  EXPECT_EQ(receipt->receipt.layers, (LayerRange{4, 8}));
  EXPECT_EQ(receipt->receipt.compute_micros, 6000u);
  EXPECT_EQ(receipt->receipt.wait_micros, 2000u);
  EXPECT_FALSE(writer_.Next());
  clock_.Advance(absl::Hours(1));
  EXPECT_FALSE(writer_.Next());  // nothing closed
}

TEST_F(ReceiptWriterTest, ManyChunksDoNotWait) {
  Add(kMaxReceiptChunks + 70);
  EXPECT_EQ(writer_.Next()->receipt.chunks.size(), kMaxReceiptChunks);
  EXPECT_EQ(writer_.Next()->receipt.chunks.size(), 70u);
  EXPECT_FALSE(writer_.Next());
}

TEST_F(ReceiptWriterTest, NumbersCountWithinAnEpoch) {
  for (const uint64_t epoch : {1, 1, 2, 1}) {
    Add(1, epoch);
    clock_.Advance(kReceiptInterval);
    const auto receipt = writer_.Next();
    ASSERT_TRUE(receipt);
    EXPECT_EQ(receipt->receipt.epoch, Epoch{epoch});
    writer_.TakeAnswer(Granted(*receipt), coordinator_.public_key());
  }
  Add(1, 1);
  Add(1, 2);
  clock_.Advance(kReceiptInterval);
  EXPECT_EQ(writer_.Next()->receipt.number, 3u);
  EXPECT_EQ(writer_.Next()->receipt.number, 1u);
}

TEST_F(ReceiptWriterTest, WhatHasNoAnswerIsSentOnceMore) {
  Add(1);
  clock_.Advance(kReceiptInterval);
  const SignedReceipt first = *writer_.Next();
  Add(1);
  clock_.Advance(kReceiptInterval);
  const SignedReceipt second = *writer_.Next();
  Add(1);
  clock_.Advance(kReceiptInterval);
  writer_.Resend();
  EXPECT_EQ(*writer_.Next(), first);
  EXPECT_EQ(*writer_.Next(), second);
  EXPECT_EQ(writer_.Next()->receipt.number, 2u);
  writer_.TakeAnswer(Granted(first), coordinator_.public_key());
  writer_.Resend();
  EXPECT_EQ(*writer_.Next(), second);
}

TEST_F(ReceiptWriterTest, FewWaitForTheirAnswers) {
  Add(100 * kMaxReceiptChunks);
  std::vector<SignedReceipt> receipts;
  while (const auto receipt = writer_.Next()) receipts.push_back(*receipt);
  EXPECT_LT(receipts.size(), 12u);
  writer_.TakeAnswer(Granted(receipts[0]), coordinator_.public_key());
  EXPECT_TRUE(writer_.Next());
  EXPECT_FALSE(writer_.Next());
}

TEST_F(ReceiptWriterTest, KeepsWhatTheCoordinatorHasSigned) {
  Add(1);
  clock_.Advance(kReceiptInterval);
  const SignedReceipt receipt = *writer_.Next();
  const ReceiptAnswer answer = Granted(receipt);
  writer_.TakeAnswer(answer, coordinator_.public_key());
  EXPECT_EQ(writer_.counters().granted, 1u);
  const std::string text = CanonicalBytes(receipt.receipt);
  const std::string kept = ReadFile(path_, 1 << 20).value();
  ASSERT_EQ(kept.size(), 4 + text.size() + 128);
  EXPECT_EQ(kept.substr(4, text.size()), text);
  EXPECT_EQ(kept.substr(4 + text.size() + 64),
            std::string(answer.countersignature->begin(), answer.countersignature->end()));
}

TEST_F(ReceiptWriterTest, ACountersignatureOfSomebodyElseIsNone) {
  Add(1);
  clock_.Advance(kReceiptInterval);
  const SignedReceipt receipt = *writer_.Next();
  writer_.TakeAnswer(Granted(receipt), writer_.public_key());
  EXPECT_EQ(writer_.counters().granted, 0u);
  EXPECT_EQ(writer_.counters().refused, 1u);
}

}  // namespace
}  // namespace efedllm
