// What nodes claimed of each sequence: where the inputs stand that a chunk was computed from, back
// to the sequence's first position, and by whose word.
#ifndef EFEDLLM_COORDINATOR_AUDIT_CLAIMS_H_
#define EFEDLLM_COORDINATOR_AUDIT_CLAIMS_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "coordinator/receipt_sink.h"

namespace efedllm {

using ClaimPtr = std::shared_ptr<const TakenClaim>;

// One side of a claim, by which rows can be checked.
struct ClaimedRows {
  ClaimPtr claim;
  bool outputs = false;

  const ChunkSide& side() const { return outputs ? claim->claim.outputs : claim->claim.inputs; }
};

// Positions [first, first + tokens) of a sequence, in front of one of its chunks.
struct InputPiece {
  uint32_t first = 0;
  uint32_t tokens = 0;
  SequenceId sequence;  // the one that stood there: the chunk's, or one that it was forked from
  // Each covers all of the piece. The best first: what the node itself said last before the chunk
  // (of a sequence that it was forked from: ever), then who held the stage before it, then its
  // upstreams. Empty: nobody has claimed them (yet).
  std::vector<ClaimedRows> claimed;
};

// Thread-safe.
class AuditClaims {
 public:
  // most: claims that are remembered; those of the sequences that were heard of least lately go
  // first.
  explicit AuditClaims(size_t most) : most_(most) {}

  // Claims of a node come in its order.
  void Add(const ClaimPtr& claim) ABSL_LOCKS_EXCLUDED(mu_);
  void AddFork(const SequenceFork& fork) ABSL_LOCKS_EXCLUDED(mu_);

  // All of [0, claim's first position), in order; and the claim is not among them.
  std::vector<InputPiece> Before(const TakenClaim& claim) const ABSL_LOCKS_EXCLUDED(mu_);

  size_t claims() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Sequence {
    std::optional<SequenceFork> fork;
    std::vector<ClaimPtr> claims;  // as they came
    std::list<SequenceId>::iterator used;
  };

  Sequence& Touch(SequenceId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  const Sequence* Find(SequenceId id) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void Shrink() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<ClaimedRows> At(const TakenClaim& audited, SequenceId sequence,
                              uint32_t position) const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const size_t most_;
  mutable absl::Mutex mu_;
  size_t count_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_map<SequenceId, Sequence> sequences_ ABSL_GUARDED_BY(mu_);
  std::list<SequenceId> by_use_ ABSL_GUARDED_BY(mu_);  // the latest first
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_CLAIMS_H_
