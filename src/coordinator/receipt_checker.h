// Checks receipts as far as that needs no computing: whose they are, that none is missing, that the
// chunks were asked for, and that neighbours say the same of the bytes between them.
#ifndef EFEDLLM_COORDINATOR_RECEIPT_CHECKER_H_
#define EFEDLLM_COORDINATOR_RECEIPT_CHECKER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster/chunk_record.h"
#include "cluster/receipt.h"
#include "cluster/step.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/signing.h"
#include "coordinator/receipt_sink.h"
#include "wire/receipt_wire.h"

namespace efedllm {

// One chain of an epoch.
struct ReceiptChain {
  std::vector<std::shared_ptr<const ReceiptStage>> stages;
  std::vector<uint32_t> replayed;  // stages that lost their KV and compute replays, ascending
};

// Thread-safe. The sink is told on a thread of the checker's own, one event after the other.
class ReceiptChecker {
 public:
  // key: the coordinator's, by which receipts are countersigned.
  ReceiptChecker(SigningKey key, const Clock& clock) : key_(std::move(key)), clock_(clock) {}
  ~ReceiptChecker() { Stop(); }

  // Once, before an epoch begins: from now on the sink, which is borrowed, is told.
  void Start(ReceiptSink& sink);
  // Returns when all that happened was told; nothing is from then on.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  const SigningKey& key() const { return key_; }
  const PublicKey& public_key() const { return key_.public_key(); }

  // From the pipeline of an epoch. Begin comes first; what is of an epoch that did not begin, or
  // lately ended, is ignored.
  void Begin(Epoch epoch, std::vector<ReceiptChain> chains) ABSL_LOCKS_EXCLUDED(mu_);
  // A step before it goes to the first stage of a chain, in the order of steps. inputs: of its
  // rows; none if none are sent.
  void Submitted(Epoch epoch, size_t chain, const Step& step, std::vector<RowSide> inputs)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Its result: every stage has passed it by then. computed: false where a stage could not run it.
  // outputs: none if none came.
  void Returned(Epoch epoch, size_t chain, StepId step, bool computed,
                absl::Span<const RowSide> outputs) ABSL_LOCKS_EXCLUDED(mu_);
  // Steps under way are lost. Receipts for what was computed may still come.
  void End(Epoch epoch) ABSL_LOCKS_EXCLUDED(mu_);

  // From a control stream. key: of the node, as its hello has it. A receipt that was taken before
  // is answered as then.
  ReceiptAnswer Take(const SignedReceipt& receipt, const PublicKey& key) ABSL_LOCKS_EXCLUDED(mu_);

  struct Counters {
    uint64_t taken = 0;
    std::array<uint64_t, kReceiptRefusals> refused = {};  // by ReceiptRefusal
    uint64_t claims = 0;
    uint64_t agreed = 0;    // of them
    uint64_t disputes = 0;  // edges
    uint64_t tokens = 0;    // claimed, once per stage
    uint64_t bytes_in = 0, bytes_out = 0;
  };
  Counters counters() const ABSL_LOCKS_EXCLUDED(mu_);
  // Returns when the sink knows of all that happened before. For tests.
  void Flush() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using ClaimPtr = std::shared_ptr<const TakenClaim>;
  using Event = std::function<void(ReceiptSink&)>;

  // A chunk that all stages which computed it have closed by the same step.
  struct Settled {
    ClosedChunk chunk;  // as far as the coordinator knows its sides
    uint64_t pass = 0;  // the result that closed it
    // Whether stages that compute replays, and the others, have it.
    std::array<bool, 2> has = {};
    std::vector<ClaimPtr> claims;  // by stage
    bool disputed = false;
  };
  struct SequenceState {
    std::array<uint64_t, 2> asked = {};  // rows, as `has`
    uint32_t least = UINT32_MAX, end = 0;
    bool released = false;
    // A step of it failed at some stage: stages differ in what they computed, and nothing is
    // compared any more.
    bool uneven = false;
    std::deque<Settled> settled;
    uint64_t first = 0;  // number of the first of them
    struct OfStage {
      uint64_t claimed = 0;          // rows
      uint64_t next = 0;             // number of the settled chunk that its next claim is about
      std::deque<ClaimPtr> waiting;  // claims of chunks that are not settled yet
      bool astray = false;           // it claimed another chunk than all others
    };
    std::vector<OfStage> stages;
  };
  struct InFlight {
    Step step;
    std::vector<RowSide> inputs;
  };
  struct ChainState {
    ReceiptChain chain;
    std::array<ChunkRecord, 2> records;  // of stages that compute replays, of the others
    std::deque<InFlight> in_flight;
    std::map<SequenceId, SequenceState> sequences;
    uint64_t passes = 0;
    // How long steps were under way, but for the time since then. What was under way when the epoch
    // ended may still be: that goes on.
    absl::Duration worked;
    std::optional<absl::Time> working_since;

    absl::Duration Worked(absl::Time now) const;
    // Index into `has`, `asked` and `records`.
    size_t KindOf(size_t stage) const;
  };
  struct NodeState {
    size_t chain = 0, stage = 0;
    uint64_t next_number = 0;
    uint64_t compute_micros = 0;                              // of the receipts taken
    std::deque<std::pair<Signature, ReceiptAnswer>> answers;  // the last ones
  };
  struct EpochState {
    std::vector<ChainState> chains;
    std::map<NodeId, NodeState> nodes;
    bool ended = false;
  };

  EpochState* Find(Epoch epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  ReceiptAnswer Refuse(const SignedReceipt& receipt, ReceiptRefusal why, std::string detail)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Why it is refused, and what is wrong with it.
  std::optional<std::pair<ReceiptRefusal, std::string>> Check(const SignedReceipt& receipt,
                                                              const PublicKey& key,
                                                              const NodeState& node,
                                                              const ChainState& chain) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // The first chunk that it was not asked for; null: none.
  static const ChunkClaim* NotAsked(const Receipt& receipt, const NodeState& node,
                                    const ChainState& chain);
  void TakeClaims(const SignedReceipt& receipt, const NodeState& node, ChainState& chain)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Settle(ChainState& chain, const InFlight& step, bool computed,
              absl::Span<const RowSide> outputs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Brings claims and settled chunks together, as far as both are there.
  void Match(ChainState& chain, SequenceId id, SequenceState& sequence)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MatchStage(ChainState& chain, size_t stage, SequenceState& sequence)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Compare(Settled& settled, size_t stage) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Dispute(Settled& settled, ClaimPtr upstream, ClaimPtr downstream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Agree(const ChainState& chain, SequenceState& sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static void ForgetOld(ChainState& chain);
  void Tell(Event event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { events_.push_back(std::move(event)); }
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);

  const SigningKey key_;
  const Clock& clock_;
  ReceiptSink* sink_ = nullptr;

  mutable absl::Mutex mu_;
  std::map<Epoch, EpochState> epochs_ ABSL_GUARDED_BY(mu_);
  Counters counters_ ABSL_GUARDED_BY(mu_);
  std::deque<Event> events_ ABSL_GUARDED_BY(mu_);
  bool telling_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_RECEIPT_CHECKER_H_
