// Turns closed chunks into signed receipts, numbers them, and keeps what the coordinator answers.
#ifndef EFEDLLM_WORKER_RECEIPT_WRITER_H_
#define EFEDLLM_WORKER_RECEIPT_WRITER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster/chunk_record.h"
#include "cluster/receipt.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/signing.h"
#include "wire/receipt_wire.h"
#include "worker/stage_tamper.h"

namespace efedllm {

// What a stage computes with, as its receipts say.
struct ReceiptStageFacts {
  Epoch epoch;
  uint32_t stage = 0;
  LayerRange layers;
  Sha256Digest manifest = {};
};

// Thread-safe; lives as long as the worker, over attachments.
class ReceiptWriter {
 public:
  // clock: borrowed. granted_path: a file to which granted receipts are appended with both
  // signatures, and which is moved aside (".1") when it is full; empty: none.
  // tamper: borrowed, of tests; null: it works as it should.
  ReceiptWriter(SigningKey key, const Clock& clock, std::string granted_path,
                const StageTamper* tamper = nullptr);

  NodeId node() const { return node_; }
  const PublicKey& public_key() const { return key_.public_key(); }

  // Whether the coordinator wants receipts: from the next stage on.
  void SetWanted(bool wanted) { wanted_ = wanted; }
  bool wanted() const { return wanted_; }

  // Chunks that closed, and what the stage's steps took since it last told.
  void Add(const ReceiptStageFacts& stage, absl::Span<const ClosedChunk> chunks,
           absl::Duration compute, absl::Duration wait) ABSL_LOCKS_EXCLUDED(mu_);

  // A receipt that is due, while few wait for their answers: kReceiptInterval after its first chunk
  // closed, or with kReceiptChunks of them. It is not given out again, unless Resend is called.
  std::optional<SignedReceipt> Next() ABSL_LOCKS_EXCLUDED(mu_);
  // From now on every chunk is due at once: the node leaves.
  void Hurry() { hurry_ = true; }
  // Nothing is to be sent, and no answer is awaited.
  bool idle() const ABSL_LOCKS_EXCLUDED(mu_);
  // Those without an answer may have got lost with the stream: Next gives them out once more.
  void Resend() ABSL_LOCKS_EXCLUDED(mu_);
  // coordinator: whose answer it is. A countersignature that is not its own counts as none.
  void TakeAnswer(const ReceiptAnswer& answer, const PublicKey& coordinator)
      ABSL_LOCKS_EXCLUDED(mu_);

  struct Counters {
    uint64_t granted = 0, refused = 0;
    uint64_t lost = 0;  // chunks that were closed while too much waited
  };
  Counters counters() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Pending {
    ReceiptStageFacts stage;
    uint64_t next_number = 0;
    std::deque<ChunkClaim> chunks;
    absl::Time since;  // of the first of them
    absl::Duration compute, wait;
  };

  std::optional<SignedReceipt> Take(Pending& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Keep(const SignedReceipt& receipt, const Signature& countersignature)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const SigningKey key_;
  const NodeId node_;
  const Clock& clock_;
  const std::string granted_path_;
  std::atomic<bool> wanted_{false};
  std::atomic<bool> hurry_{false};
  const StageTamper* const tamper_;

  mutable absl::Mutex mu_;
  std::map<Epoch, Pending> pending_ ABSL_GUARDED_BY(mu_);
  std::deque<SignedReceipt> unanswered_ ABSL_GUARDED_BY(mu_);  // the first resend_ to be sent again
  size_t resend_ ABSL_GUARDED_BY(mu_) = 0;
  Counters counters_ ABSL_GUARDED_BY(mu_);
};

inline constexpr absl::Duration kReceiptInterval = absl::Milliseconds(250);
// A liar is found by what it has signed for: a fast node signs more often.
inline constexpr size_t kReceiptChunks = 8;

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_RECEIPT_WRITER_H_
