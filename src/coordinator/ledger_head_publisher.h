// Signs heads of the ledger and has workers keep them, each with the proof that it continues what
// that worker keeps.
#ifndef EFEDLLM_COORDINATOR_LEDGER_HEAD_PUBLISHER_H_
#define EFEDLLM_COORDINATOR_LEDGER_HEAD_PUBLISHER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/ledger_head.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/signing.h"
#include "incentive/ledger.h"
#include "wire/ledger_wire.h"

namespace efedllm {

// The way to a worker. Thread-safe; Offer never blocks.
class LedgerHeadKeeper {
 public:
  virtual ~LedgerHeadKeeper() = default;
  virtual void Offer(const LedgerHeadOffer& offer) = 0;
};

// Thread-safe. What waits for the disk waits in a thread of its own.
class LedgerHeadPublisher {
 public:
  // clock is borrowed.
  LedgerHeadPublisher(const Clock& clock, SigningKey key) : clock_(clock), key_(std::move(key)) {}
  ~LedgerHeadPublisher() { Stop(); }

  // Once; ledger is borrowed until Stop. A head is signed at once, and then, as long as there are
  // new entries, so often.
  void Start(Ledger& ledger, absl::Duration interval = absl::Seconds(30));
  // Signs and offers what is new as soon as it can, before a longer pause. Returns at once.
  void Hurry() ABSL_LOCKS_EXCLUDED(mu_);
  // Signs and offers the last head, if it was started.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  // What a worker says that it keeps: when it attaches, and in answer to each offer. It is offered
  // nothing before the first, nor while it owes an answer, nor once it has refused.
  void OnHeld(NodeId node, const std::shared_ptr<LedgerHeadKeeper>& keeper,
              const HeldLedgerHead& held) ABSL_LOCKS_EXCLUDED(mu_);
  void OnGone(const LedgerHeadKeeper* keeper) ABSL_LOCKS_EXCLUDED(mu_);

  struct Figures {
    uint64_t entries = 0;   // under the newest signed head
    uint32_t holders = 0;   // attached workers that keep it
    uint32_t refusers = 0;  // and those that keep another history
  };
  Figures figures() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Worker {
    NodeId node;
    std::shared_ptr<LedgerHeadKeeper> keeper;
    std::optional<SignedLedgerHead> held;
    uint64_t offered = 0;  // entries
    bool owes_answer = false;
    bool refuses = false;
  };

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  void SignWhatIsNew() ABSL_LOCKS_EXCLUDED(mu_);
  void OfferToAll() ABSL_LOCKS_EXCLUDED(mu_);
  bool HasDue() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool IsDue(const Worker& worker) const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const Clock& clock_;
  const SigningKey key_;
  Ledger* ledger_ = nullptr;
  absl::Duration interval_;
  absl::Status last_error_;  // of thread_

  mutable absl::Mutex mu_;
  std::map<const LedgerHeadKeeper*, Worker> workers_ ABSL_GUARDED_BY(mu_);
  std::optional<SignedLedgerHead> head_ ABSL_GUARDED_BY(mu_);  // the newest
  bool hurry_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  std::thread thread_;  // from Start to Stop
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_LEDGER_HEAD_PUBLISHER_H_
