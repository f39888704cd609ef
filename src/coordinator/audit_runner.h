// Audits in the shadow of the serving: picks finished chunks by a secret lottery once their
// receipts are in, and judges them in a thread that gives way to requests.
#ifndef EFEDLLM_COORDINATOR_AUDIT_RUNNER_H_
#define EFEDLLM_COORDINATOR_AUDIT_RUNNER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/audit_appeals.h"
#include "coordinator/audit_claims.h"
#include "coordinator/audit_evidence.h"
#include "coordinator/audit_pace.h"
#include "coordinator/audit_queue.h"
#include "coordinator/audit_trial.h"
#include "coordinator/receipt_sink.h"
#include "incentive/audit_policy.h"
#include "wire/receipt_wire.h"

namespace efedllm {

struct AuditRunnerOptions {
  size_t queue = 4096;                  // chunks that wait; more push the oldest out
  size_t remembered_claims = 1u << 17;  // of all sequences, for their inputs
  AuditBatchLimits batch;
  std::string kernels = "auto";
  int threads = 1;
  // What is missing (other claims, a node that is away) is waited for so often and so long; without
  // claims of what stands before it, a chunk is then judged by its node's own word on that.
  int attempts = 12;
  // How old a receipt may be, and how many rows its node may have signed for since, when the node
  // is still to show what is behind it: what is asked for too late for that is the coordinator's
  // fault.
  absl::Duration window = absl::Minutes(1);
  uint64_t window_rows = kRowsToKeep;
  absl::Duration retry = absl::Seconds(2);
  // While requests are served, audits take this share of the machine's cores, and at once what they
  // have saved up of it, and as much on credit. (A thread of the lowest priority gets nothing where
  // others keep all cores busy.)
  double busy_share = 0.01;
  absl::Duration burst = absl::Milliseconds(300);
  // The first audits of a node come before all others and give way to nothing.
  size_t prompt_audits = 8;
};

// Since the start.
struct AuditCounters {
  uint64_t claims = 0;  // that could have been picked
  uint64_t picked = 0;
  uint64_t honest = 0, lied = 0, withheld = 0, undecidable = 0, away = 0, dropped = 0;
  uint64_t waiting = 0;  // now
  uint64_t rows_replayed = 0;
};

// What the runner itself borrows, beside its trials' parts; all outlives it. Functions may be
// called from any thread.
struct AuditRunnerParts {
  // As AuditTrialParts; claims, draw and before_step are the runner's own.
  const Clock& clock;
  KeptRowsSource& rows;
  BasesOfStage bases;
  std::string model;
  StageReplayOptions replay;
  StageReplay::LayerSource layers;
  std::string evidence_folder;
  std::function<std::vector<AuditVerifier>(const ReceiptStage& stage)> verifiers;
  std::function<std::string(NodeId node)> owner;
  StageReplayer* replayer = nullptr;
  uint64_t recheck_ppm = 0, planted_ppm = 0;
  LotterySecret secret = {};

  std::function<uint64_t(NodeId node)> rate_ppm;  // of a node's chunks
  std::function<bool()> busy;                     // are requests served right now? May be null
  // Has the node been here without a break since then (by the steady clock)? May be null: yes.
  std::function<bool(NodeId node, absl::Time since)> stayed;
  std::function<void(NodeId node)> on_proven;  // as AuditTrialParts; may be null
  // Each picked chunk once, on the runner's thread (kDropped: on that of OnReceipt). Never kLater.
  std::function<void(const AuditResult& result)> on_result;
};

class AuditRunner {
 public:
  AuditRunner(AuditRunnerOptions options, AuditRunnerParts parts);
  // Ends the audit under way; what waits is not judged.
  ~AuditRunner();

  // Claims of a receipt that is countersigned. Returns which of them were picked, in order: their
  // pay waits for on_result. Thread-safe; never blocks for long.
  std::vector<bool> OnReceipt(const SignedReceipt& receipt, const std::vector<ClaimPtr>& claims);
  // A sequence that begins with another's positions. Thread-safe.
  void OnFork(const SequenceFork& fork) { claims_.AddFork(fork); }

  // Of a node that appeals: the chunks that it did not show are audited again, and come by
  // on_result again. How that stands; the first call begins it, and the first that finds none
  // waiting ends it. No chunks: there were none to audit again.
  AuditAppeal Reaudit(NodeId node) ABSL_LOCKS_EXCLUDED(mu_);

  AuditCounters counters() const ABSL_LOCKS_EXCLUDED(mu_);
  const EvidenceStore& evidence() const { return evidence_; }
  // Waits until nothing waits and nothing is judged; false: not in time. For tests and the end of
  // benchmarks.
  bool AwaitIdle(absl::Duration timeout) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run();
  void JudgeBatch(AuditTrial& trial, std::vector<AuditJob> batch);
  void Enqueue(AuditJob job);
  // Whether its node need not show its rows any more.
  bool IsTooLate(const AuditJob& job) const ABSL_LOCKS_EXCLUDED(mu_);
  void Retry(AuditResult result);
  void Report(const AuditResult& result) ABSL_LOCKS_EXCLUDED(mu_);
  bool IsFree() const;
  absl::Status GiveWay();
  uint64_t DrawFor(LotteryPurpose purpose, const TakenClaim& claim) const;
  AuditTrialParts TrialParts();

  const AuditRunnerOptions options_;
  const AuditRunnerParts parts_;
  AuditClaims claims_;
  AuditQueue queue_;
  EvidenceStore evidence_;
  AuditAppeals appeals_;
  std::atomic<bool> stopping_{false};

  mutable absl::Mutex mu_;
  AuditCounters counters_ ABSL_GUARDED_BY(mu_);
  size_t judging_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<NodeId, uint64_t> signed_rows_ ABSL_GUARDED_BY(mu_);
  std::map<NodeId, size_t> picked_ ABSL_GUARDED_BY(mu_);  // chunks of each, since the start

  // Of the runner's thread.
  AuditPace pace_;
  bool prompt_ = false;  // what is judged now

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_RUNNER_H_
