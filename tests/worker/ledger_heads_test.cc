#include "worker/ledger_heads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/ledger_head_json.h"
#include "cluster/merkle.h"
#include "common/file.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

class HeldHeads : public testing::Test {
 protected:
  HeldHeads()
      : folder_(absl::StrCat(testing::TempDir(), "/heads", getpid(), "-",
                             testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    key_ = SigningKey::OpenOrCreate(folder_ + "/signing.key").value();
  }
  ~HeldHeads() override { std::filesystem::remove_all(folder_); }

  // What a ledger with so many entries commits to. Those of another history differ from entry
  // `split` on.
  LedgerHead Head(uint64_t size, uint64_t split = UINT64_MAX) const {
    MerkleTree tree;
    for (uint64_t i = 0; i < size; ++i) tree.Append(Leaf(i, split));
    LedgerHead head{.size = size, .root = tree.Root(), .time_micros = int64_t(size) * 1'000'000};
    head.ledger.fill(7);
    head.chain = Leaf(size - 1, split);
    return head;
  }
  LedgerHeadOffer Offer(uint64_t from, uint64_t size, uint64_t split = UINT64_MAX) const {
    const auto subtree = [&](uint64_t first, uint32_t level) -> absl::StatusOr<Sha256Digest> {
      MerkleTree tree;
      for (uint64_t i = 0; i < uint64_t{1} << level; ++i) tree.Append(Leaf(first + i, split));
      return tree.Root();
    };
    LedgerHeadOffer offer{SignHead(Head(size, split), *key_), {}};
    if (from <= size) offer.proof = ConsistencyProof(from, size, subtree).value();
    return offer;
  }
  const PublicKey& key() const { return key_->public_key(); }
  std::string Heads() const { return folder_ + "/held"; }
  std::string File(const std::string& ending) const {
    return absl::StrCat(Heads(), "/", PublicKeyHex(key()), ending);
  }
  uint64_t NewestSize(HeldLedgerHeads& heads) const {
    const auto newest = heads.Newest(key());
    EXPECT_TRUE(newest.ok()) << newest.status();
    return newest.ok() && *newest ? (*newest)->head.size : 0;
  }

  const std::string folder_;
  std::optional<SigningKey> key_;

 private:
  static Sha256Digest Leaf(uint64_t index, uint64_t split) {
    const std::string text = absl::StrCat(index, index >= split ? "other" : "");
    return MerkleLeaf({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
};

TEST_F(HeldHeads, FollowALedgerThatGrowsAndOutliveTheWorker) {
  {
    HeldLedgerHeads heads(Heads());
    EXPECT_EQ(NewestSize(heads), 0u);
    EXPECT_TRUE(heads.Take(key(), Offer(0, 3)).ok());
    EXPECT_TRUE(heads.Take(key(), Offer(3, 10)).ok());
    EXPECT_TRUE(heads.Take(key(), Offer(10, 10)).ok());
  }
  HeldLedgerHeads heads(Heads());
  EXPECT_EQ(NewestSize(heads), 10u);
  EXPECT_TRUE(heads.Take(key(), Offer(10, 77)).ok());
  const auto lines = ParseHeads(ReadFile(File(".jsonl"), 1 << 20).value());
  ASSERT_TRUE(lines.ok()) << lines.status();
  ASSERT_EQ(lines->size(), 3u);  // the same head is kept once
  EXPECT_EQ(lines->back().head.size, 77u);
  EXPECT_FALSE(std::filesystem::exists(File(".forks.jsonl")));
}

TEST_F(HeldHeads, RefuseAForkAndKeepBothOfItsHeads) {
  for (const auto& [size, split] : std::vector<std::pair<uint64_t, uint64_t>>{
           {20, 4}, {10, 9}, {10, 4}, {7, 6}, {7, UINT64_MAX}}) {
    HeldLedgerHeads heads(Heads());
    ASSERT_TRUE(heads.Take(key(), Offer(0, 10)).ok());
    const LedgerHeadOffer fork = Offer(10, size, split);
    const absl::Status refused = heads.Take(key(), fork);
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("the head with 10 entries"));
    EXPECT_THAT(heads.WhatToDo(key()), HasSubstr(File(".forks.jsonl")));
    const auto proof = ParseHeads(ReadFile(File(".forks.jsonl"), 1 << 20).value());
    ASSERT_TRUE(proof.ok()) << proof.status();
    ASSERT_EQ(proof->size(), 2u);
    EXPECT_EQ((*proof)[0].head, Head(10));
    EXPECT_EQ((*proof)[1], fork.head);
    // It stays with what it holds, and goes on with whoever continues that.
    EXPECT_EQ(NewestSize(heads), 10u);
    EXPECT_TRUE(heads.Take(key(), Offer(10, 12)).ok());
    std::filesystem::remove_all(Heads());
  }
}

TEST_F(HeldHeads, RefuseALedgerThatTookThePlaceOfAnother) {
  HeldLedgerHeads heads(Heads());
  ASSERT_TRUE(heads.Take(key(), Offer(0, 10)).ok());
  LedgerHead other = Head(20);
  other.ledger.fill(8);
  const absl::Status refused = heads.Take(key(), {SignHead(other, *key_), Offer(10, 20).proof});
  EXPECT_THAT(std::string(refused.message()), HasSubstr("another ledger"));
  EXPECT_TRUE(std::filesystem::exists(File(".forks.jsonl")));
}

TEST_F(HeldHeads, RefuseWhatTheCoordinatorDidNotSign) {
  HeldLedgerHeads heads(Heads());
  ASSERT_TRUE(heads.Take(key(), Offer(0, 10)).ok());
  LedgerHeadOffer forged = Offer(10, 20);
  forged.head.signature[3] ^= 1;
  EXPECT_TRUE(absl::IsInvalidArgument(heads.Take(key(), forged)));
  const auto other = SigningKey::OpenOrCreate(folder_ + "/other.key");
  EXPECT_TRUE(absl::IsInvalidArgument(
      heads.Take(key(), {SignHead(Head(20), *other), Offer(10, 20).proof})));
  EXPECT_FALSE(std::filesystem::exists(File(".forks.jsonl")));
  // Another coordinator's heads are another matter.
  EXPECT_TRUE(heads.Take(other->public_key(), {SignHead(Head(5, 0), *other), {}}).ok());
  EXPECT_EQ(NewestSize(heads), 10u);
}

TEST_F(HeldHeads, AreBoundedAndTheOldOnesMoveAside) {
  HeldLedgerHeads heads(Heads(), /*most_bytes=*/2000);
  for (uint64_t size = 1; size < 30; ++size) {
    ASSERT_TRUE(heads.Take(key(), Offer(size - 1, size)).ok());
  }
  EXPECT_LT(std::filesystem::file_size(File(".jsonl")), 2600u);
  EXPECT_LT(std::filesystem::file_size(File(".1.jsonl")), 2600u);
  // Killed between moving the file aside and writing the new one.
  std::filesystem::rename(File(".jsonl"), File(".1.jsonl"));
  HeldLedgerHeads again(Heads(), 2000);
  EXPECT_EQ(NewestSize(again), 29u);
}

TEST_F(HeldHeads, ALineThatWasBeingWrittenInAPowerCutIsCutOff) {
  {
    HeldLedgerHeads heads(Heads());
    ASSERT_TRUE(heads.Take(key(), Offer(0, 10)).ok());
  }
  std::ofstream(File(".jsonl"), std::ios::app) << R"({"chain": "12)";
  HeldLedgerHeads heads(Heads());
  EXPECT_EQ(NewestSize(heads), 10u);
  EXPECT_TRUE(heads.Take(key(), Offer(10, 11)).ok());
  HeldLedgerHeads again(Heads());
  EXPECT_EQ(NewestSize(again), 11u);
}

TEST_F(HeldHeads, AFileThatSomebodyChangedIsNotTakenForNone) {
  {
    HeldLedgerHeads heads(Heads());
    ASSERT_TRUE(heads.Take(key(), Offer(0, 10)).ok());
  }
  std::ofstream(File(".jsonl"), std::ios::app) << "{}\n";
  HeldLedgerHeads heads(Heads());
  EXPECT_TRUE(absl::IsDataLoss(heads.Newest(key()).status()));
  EXPECT_TRUE(absl::IsDataLoss(heads.Take(key(), Offer(0, 20))));
}

}  // namespace
}  // namespace efedllm
