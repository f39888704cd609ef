#include "cluster/merkle.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "cluster/ledger_head.h"
#include "common/random.h"

namespace efedllm {
namespace {

absl::Span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The eight entries of the reference implementation's tests.
std::vector<Sha256Digest> KnownLeaves() {
  std::vector<Sha256Digest> leaves;
  for (const char* hex : {"", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                          "606162636465666768696a6b6c6d6e6f"}) {
    leaves.push_back(MerkleLeaf(Bytes(absl::HexStringToBytes(hex))));
  }
  return leaves;
}

std::vector<Sha256Digest> SomeLeaves(size_t n) {
  std::vector<Sha256Digest> leaves;
  for (size_t i = 0; i < n; ++i) leaves.push_back(MerkleLeaf(Bytes(std::to_string(i))));
  return leaves;
}

// By the definition: MTH(D[n]) splits at the largest power of two below n.
Sha256Digest Defined(absl::Span<const Sha256Digest> leaves) {
  if (leaves.empty()) return Sha256({});
  if (leaves.size() == 1) return leaves[0];
  size_t split = 1;
  while (split * 2 < leaves.size()) split *= 2;
  return MerkleParent(Defined(leaves.subspan(0, split)), Defined(leaves.subspan(split)));
}

struct Subtrees {
  const std::vector<Sha256Digest>& leaves;
  absl::StatusOr<Sha256Digest> operator()(uint64_t first, uint32_t level) const {
    EXPECT_EQ(first % (uint64_t{1} << level), 0u);
    EXPECT_LE(first + (uint64_t{1} << level), leaves.size());
    return Defined(absl::MakeConstSpan(leaves).subspan(first, size_t{1} << level));
  }
};

TEST(Merkle, HasTheKnownRoots) {
  const std::vector<std::string> roots = {
      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
      "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
      "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
      "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
      "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
      "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
      "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  MerkleTree tree;
  EXPECT_EQ(ToHex(tree.Root()), roots[0]);
  const std::vector<Sha256Digest> leaves = KnownLeaves();
  for (size_t i = 0; i < leaves.size(); ++i) {
    tree.Append(leaves[i]);
    EXPECT_EQ(ToHex(tree.Root()), roots[i + 1]);
  }
}

TEST(Merkle, ProvesTheKnownEntriesAndPrefixes) {
  const std::vector<Sha256Digest> leaves = KnownLeaves();
  const Subtrees subtrees{leaves};
  const MerkleProof inclusion = *InclusionProof(5, 8, subtrees);
  ASSERT_EQ(inclusion.size(), 3u);
  EXPECT_EQ(ToHex(inclusion[0]),
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b");
  EXPECT_EQ(ToHex(inclusion[1]),
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0");
  EXPECT_EQ(ToHex(inclusion[2]),
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7");
  const MerkleProof consistency = *ConsistencyProof(6, 8, subtrees);
  ASSERT_EQ(consistency.size(), 3u);
  EXPECT_EQ(ToHex(consistency[0]),
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a");
  EXPECT_EQ(ToHex(consistency[1]),
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0");
  EXPECT_EQ(ToHex(consistency[2]),
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7");
}

TEST(Merkle, GrowsAsDefined) {
  const std::vector<Sha256Digest> leaves = SomeLeaves(130);
  MerkleTree tree;
  for (size_t n = 0; n <= leaves.size(); ++n) {
    const Sha256Digest defined = Defined(absl::MakeConstSpan(leaves).subspan(0, n));
    EXPECT_EQ(tree.Root(), defined);
    EXPECT_EQ(*MerkleRoot(n, Subtrees{leaves}), defined);
    if (n < leaves.size()) tree.Append(leaves[n]);
  }
}

TEST(Merkle, ProvesEveryEntryOfEverySize) {
  const std::vector<Sha256Digest> leaves = SomeLeaves(41);
  const Subtrees subtrees{leaves};
  for (uint64_t size = 1; size <= leaves.size(); ++size) {
    const Sha256Digest root = *MerkleRoot(size, subtrees);
    for (uint64_t index = 0; index < size; ++index) {
      MerkleProof proof = *InclusionProof(index, size, subtrees);
      EXPECT_TRUE(VerifyInclusion(leaves[index], index, size, proof, root));
      EXPECT_FALSE(VerifyInclusion(leaves[(index + 1) % 41], index, size, proof, root));
      EXPECT_FALSE(VerifyInclusion(leaves[index], size, size, proof, root));
      if (size > 1) {
        EXPECT_FALSE(VerifyInclusion(leaves[index], (index + 1) % size, size, proof, root));
      }
      for (size_t i = 0; i < proof.size(); ++i) {
        proof[i][7] ^= 4;
        EXPECT_FALSE(VerifyInclusion(leaves[index], index, size, proof, root));
        proof[i][7] ^= 4;
      }
      proof.push_back(root);
      EXPECT_FALSE(VerifyInclusion(leaves[index], index, size, proof, root));
    }
  }
}

TEST(Merkle, ProvesThatEverySizeBeginsWithEverySmallerOne) {
  const std::vector<Sha256Digest> leaves = SomeLeaves(41);
  std::vector<Sha256Digest> forked = leaves;
  forked[0] = leaves[40];
  const Subtrees subtrees{leaves};
  for (uint64_t size = 0; size <= leaves.size(); ++size) {
    const Sha256Digest root = *MerkleRoot(size, subtrees);
    for (uint64_t old = 0; old <= size; ++old) {
      const Sha256Digest old_root = *MerkleRoot(old, subtrees);
      MerkleProof proof = *ConsistencyProof(old, size, subtrees);
      EXPECT_TRUE(VerifyConsistency(old, old_root, size, root, proof)) << old << " " << size;
      if (old == 0) continue;
      EXPECT_FALSE(VerifyConsistency(old, *MerkleRoot(old, Subtrees{forked}), size, root, proof));
      EXPECT_FALSE(VerifyConsistency(old, old_root, size, *MerkleRoot(size, Subtrees{forked}),
                                     *ConsistencyProof(old, size, Subtrees{forked})));
      for (size_t i = 0; i < proof.size(); ++i) {
        proof[i][31] ^= 1;
        EXPECT_FALSE(VerifyConsistency(old, old_root, size, root, proof));
        proof[i][31] ^= 1;
      }
      proof.push_back(root);
      EXPECT_FALSE(VerifyConsistency(old, old_root, size, root, proof));
    }
  }
}

TEST(Merkle, SurvivesAnythingForAProof) {
  Random random(7);
  const std::vector<Sha256Digest> leaves = SomeLeaves(3);
  for (int i = 0; i < 2000; ++i) {
    const MerkleProof proof(random.Below(70), leaves[random.Below(3)]);
    const uint64_t a = random.Next() >> random.Below(64);
    const uint64_t b = random.Next() >> random.Below(64);
    EXPECT_FALSE(VerifyInclusion(leaves[0], a, b, proof, leaves[2]));
    EXPECT_FALSE(VerifyConsistency(a, leaves[0], b, leaves[1], proof));
  }
}

LedgerHead HeadOf(const std::vector<Sha256Digest>& leaves, uint64_t size) {
  return {.ledger = leaves[0],
          .size = size,
          .root = *MerkleRoot(size, Subtrees{leaves}),
          .chain = leaves[size - 1]};
}

TEST(LedgerHead, ThatDoesNotContinueAnotherIsAFork) {
  const std::vector<Sha256Digest> leaves = SomeLeaves(20);
  std::vector<Sha256Digest> forked = leaves;
  forked[12] = leaves[13];
  const Subtrees subtrees{leaves};
  const LedgerHead at12 = HeadOf(leaves, 12), at15 = HeadOf(leaves, 15);
  EXPECT_TRUE(CheckHeadFollows(at12, at15, *ConsistencyProof(12, 15, subtrees)).ok());
  EXPECT_TRUE(CheckHeadFollows(at15, at15, {}).ok());
  const LedgerHead other = HeadOf(forked, 20);
  EXPECT_TRUE(CheckHeadFollows(at12, other, *ConsistencyProof(12, 20, Subtrees{forked})).ok());
  EXPECT_EQ(CheckHeadFollows(at15, other, *ConsistencyProof(15, 20, Subtrees{forked})).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(CheckHeadFollows(at15, HeadOf(forked, 15), {}).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CheckHeadFollows(at15, at12, {}).code(), absl::StatusCode::kInvalidArgument);
  LedgerHead stranger = at15;
  stranger.ledger = leaves[1];
  EXPECT_EQ(CheckHeadFollows(at15, stranger, {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST(LedgerHead, IsSignedWithAllItsFields) {
  const std::vector<Sha256Digest> leaves = SomeLeaves(3);
  const std::string path = testing::TempDir() + "/efedllm-head-" + std::to_string(getpid());
  const auto key = SigningKey::OpenOrCreate(path);
  std::remove(path.c_str());
  ASSERT_TRUE(key.ok()) << key.status();
  const SignedLedgerHead head = SignHead(HeadOf(leaves, 3), *key);
  EXPECT_TRUE(IsSigned(head));
  std::vector<SignedLedgerHead> others(6, head);
  others[0].head.ledger = leaves[1];
  others[1].head.size = 4;
  others[2].head.root = leaves[1];
  others[3].head.chain = leaves[1];
  others[4].head.time_micros = 1;
  others[5].key[3] ^= 1;
  for (const SignedLedgerHead& other : others) EXPECT_FALSE(IsSigned(other));
}

}  // namespace
}  // namespace efedllm
