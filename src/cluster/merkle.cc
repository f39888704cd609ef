#include "cluster/merkle.h"

#include <algorithm>
#include <array>
#include <bit>

#include "absl/status/status.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

Sha256Hasher& Hasher() {
  static thread_local Sha256Hasher hasher;
  return hasher;
}

// The largest power of two below size. size > 1.
uint64_t SplitOf(uint64_t size) { return std::bit_floor(size - 1); }

uint32_t LevelOf(uint64_t full_size) { return static_cast<uint32_t>(std::countr_zero(full_size)); }

// MTH(D[first : first + size]). Left parts of splits are full subtrees, and so is what is asked
// for.
absl::StatusOr<Sha256Digest> RangeRoot(uint64_t first, uint64_t size, MerkleSubtrees subtrees) {
  if (std::has_single_bit(size)) return subtrees(first, LevelOf(size));
  const uint64_t left_size = SplitOf(size);
  ASSIGN_OR_RETURN(const Sha256Digest left, subtrees(first, LevelOf(left_size)));
  ASSIGN_OR_RETURN(const Sha256Digest right,
                   RangeRoot(first + left_size, size - left_size, subtrees));
  return MerkleParent(left, right);
}

}  // namespace

Sha256Digest MerkleLeaf(absl::Span<const uint8_t> bytes) {
  constexpr std::array<uint8_t, 1> kPrefix = {0};
  Hasher().Add(kPrefix);
  Hasher().Add(bytes);
  return Hasher().Finish();
}

Sha256Digest MerkleParent(const Sha256Digest& left, const Sha256Digest& right) {
  std::array<uint8_t, 65> bytes;
  bytes[0] = 1;
  std::copy(left.begin(), left.end(), bytes.begin() + 1);
  std::copy(right.begin(), right.end(), bytes.begin() + 33);
  Hasher().Add(bytes);
  return Hasher().Finish();
}

void MerkleTree::Append(const Sha256Digest& leaf) {
  Sha256Digest peak = leaf;
  for (uint64_t full = size_; (full & 1) == 1; full >>= 1) {
    peak = MerkleParent(peaks_.back(), peak);
    peaks_.pop_back();
  }
  peaks_.push_back(peak);
  ++size_;
}

Sha256Digest MerkleTree::Root() const {
  if (peaks_.empty()) return Sha256({});
  Sha256Digest root = peaks_.back();
  for (size_t i = peaks_.size() - 1; i-- > 0;) root = MerkleParent(peaks_[i], root);
  return root;
}

absl::StatusOr<Sha256Digest> MerkleRoot(uint64_t size, MerkleSubtrees subtrees) {
  if (size == 0) return Sha256({});
  return RangeRoot(0, size, subtrees);
}

// PATH(m, D[n]), from the root down; the proof has it from the leaf up.
absl::StatusOr<MerkleProof> InclusionProof(uint64_t index, uint64_t size, MerkleSubtrees subtrees) {
  CHECK(index < size);
  MerkleProof proof;
  for (uint64_t first = 0; size > 1;) {
    const uint64_t left_size = SplitOf(size);
    const bool in_left = index - first < left_size;
    ASSIGN_OR_RETURN(const Sha256Digest other,
                     in_left ? RangeRoot(first + left_size, size - left_size, subtrees)
                             : subtrees(first, LevelOf(left_size)));
    proof.push_back(other);
    first += in_left ? 0 : left_size;
    size = in_left ? left_size : size - left_size;
  }
  std::reverse(proof.begin(), proof.end());
  return proof;
}

// SUBPROOF(m, D[n], true), from the root down.
absl::StatusOr<MerkleProof> ConsistencyProof(uint64_t old_size, uint64_t new_size,
                                             MerkleSubtrees subtrees) {
  CHECK(old_size <= new_size);
  MerkleProof proof;
  if (old_size == 0 || old_size == new_size) return proof;
  uint64_t first = 0;
  uint64_t size = new_size;
  while (old_size - first != size) {
    const uint64_t left_size = SplitOf(size);
    const bool ends_left = old_size - first <= left_size;
    ASSIGN_OR_RETURN(const Sha256Digest other,
                     ends_left ? RangeRoot(first + left_size, size - left_size, subtrees)
                               : subtrees(first, LevelOf(left_size)));
    proof.push_back(other);
    first += ends_left ? 0 : left_size;
    size = ends_left ? left_size : size - left_size;
  }
  // The old list's last subtree, unless it is the whole old list, whose root the verifier has.
  if (first != 0) {
    ASSIGN_OR_RETURN(const Sha256Digest last, RangeRoot(first, size, subtrees));
    proof.push_back(last);
  }
  std::reverse(proof.begin(), proof.end());
  return proof;
}

// RFC 9162, section 2.1.3.2.
bool VerifyInclusion(const Sha256Digest& leaf, uint64_t index, uint64_t size,
                     absl::Span<const Sha256Digest> proof, const Sha256Digest& root) {
  if (index >= size) return false;
  uint64_t node = index;
  uint64_t last = size - 1;
  Sha256Digest hash = leaf;
  for (const Sha256Digest& other : proof) {
    if (last == 0) return false;
    if ((node & 1) == 1 || node == last) {
      hash = MerkleParent(other, hash);
      while ((node & 1) == 0 && node != 0) {
        node >>= 1;
        last >>= 1;
      }
    } else {
      hash = MerkleParent(hash, other);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && hash == root;
}

// RFC 9162, section 2.1.4.2.
bool VerifyConsistency(uint64_t old_size, const Sha256Digest& old_root, uint64_t new_size,
                       const Sha256Digest& new_root, absl::Span<const Sha256Digest> proof) {
  if (old_size > new_size) return false;
  if (old_size == new_size) return proof.empty() && old_root == new_root;
  if (old_size == 0) return proof.empty() && old_root == Sha256({});
  const bool whole = std::has_single_bit(old_size);  // the old root is itself the first hash
  if (!whole && proof.empty()) return false;
  Sha256Digest old_hash = whole ? old_root : proof[0];
  if (!whole) proof.remove_prefix(1);
  Sha256Digest new_hash = old_hash;
  uint64_t node = old_size - 1;
  uint64_t last = new_size - 1;
  while ((node & 1) == 1) {
    node >>= 1;
    last >>= 1;
  }
  for (const Sha256Digest& other : proof) {
    if (last == 0) return false;
    if ((node & 1) == 1 || node == last) {
      old_hash = MerkleParent(other, old_hash);
      new_hash = MerkleParent(other, new_hash);
      while ((node & 1) == 0 && node != 0) {
        node >>= 1;
        last >>= 1;
      }
    } else {
      new_hash = MerkleParent(new_hash, other);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && old_hash == old_root && new_hash == new_root;
}

}  // namespace efedllm
