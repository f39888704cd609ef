// Merkle trees over a growing list, as Certificate Transparency has them (RFC 6962, section 2.1): a
// root commits to a list's first n entries, and short proofs show that an entry is one of them, or
// that a longer list begins with a shorter one. Pure; who verifies needs no list.
#ifndef EFEDLLM_CLUSTER_MERKLE_H_
#define EFEDLLM_CLUSTER_MERKLE_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sha256.h"

namespace efedllm {

using MerkleProof = std::vector<Sha256Digest>;

// More hashes than any proof over 2^63 entries has.
inline constexpr size_t kMaxMerkleProof = 130;

// What an entry is in the tree: SHA-256(0x00, bytes).
Sha256Digest MerkleLeaf(absl::Span<const uint8_t> bytes);
// Two subtrees that lie side by side: SHA-256(0x01, left, right).
Sha256Digest MerkleParent(const Sha256Digest& left, const Sha256Digest& right);

// The root of a list that grows: keeps one hash for each bit of its length.
class MerkleTree {
 public:
  void Append(const Sha256Digest& leaf);
  uint64_t size() const { return size_; }
  // SHA-256 of nothing for the empty list.
  Sha256Digest Root() const;

 private:
  uint64_t size_ = 0;
  std::vector<Sha256Digest> peaks_;  // roots of the full subtrees, the largest first
};

// The root of leaves [first, first + 2^level); first is a multiple of 2^level.
using MerkleSubtrees =
    absl::FunctionRef<absl::StatusOr<Sha256Digest>(uint64_t first, uint32_t level)>;

// Of the list's first `size` entries. Asks for at most one subtree per bit of size.
absl::StatusOr<Sha256Digest> MerkleRoot(uint64_t size, MerkleSubtrees subtrees);

// That leaf `index` is among the first `size`. index < size.
absl::StatusOr<MerkleProof> InclusionProof(uint64_t index, uint64_t size, MerkleSubtrees subtrees);
// That the list of new_size begins with that of old_size. old_size <= new_size. Empty where there
// is nothing to prove: they are equal, or the old one is empty.
absl::StatusOr<MerkleProof> ConsistencyProof(uint64_t old_size, uint64_t new_size,
                                             MerkleSubtrees subtrees);

// False for whatever is not a proof of it.
bool VerifyInclusion(const Sha256Digest& leaf, uint64_t index, uint64_t size,
                     absl::Span<const Sha256Digest> proof, const Sha256Digest& root);
bool VerifyConsistency(uint64_t old_size, const Sha256Digest& old_root, uint64_t new_size,
                       const Sha256Digest& new_root, absl::Span<const Sha256Digest> proof);

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_MERKLE_H_
