// What pays and polices the nodes of a running coordinator: the ledger, the book that decides what
// goes into it, the audits that it is decided by, and the thread that turns them.
#ifndef EFEDLLM_COORDINATOR_INCENTIVES_H_
#define EFEDLLM_COORDINATOR_INCENTIVES_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "cluster/stage_plan.h"
#include "common/clock.h"
#include "common/ids.h"
#include "coordinator/audit_runner.h"
#include "coordinator/contribution_book.h"
#include "coordinator/epoch_keeper.h"
#include "coordinator/receipt_sink.h"
#include "coordinator/usage_meter.h"
#include "incentive/audit_policy.h"
#include "incentive/incentive_rules.h"
#include "incentive/ledger.h"

namespace efedllm {

struct IncentivesOptions {
  std::string state_dir;  // of ledger.db and evidence/
  IncentiveRules rules;
  AuditRunnerOptions audits;
};

// All borrowed.
struct IncentivesParts {
  const Clock& clock;
  const ModelConfig& config;
  std::string model;  // id
  EpochKeeper& keeper;
  UsageMeter& usage;
  KeptRowsSource& rows;
  BasesOfStage bases;
  StageReplayOptions replay;
  StageReplay::LayerSource layers;
  std::function<bool()> busy;         // are requests served right now?
  bool safe_channels = true;          // ContributionParts
  StageReplayer* replayer = nullptr;  // asks verifiers and suspects; null: nobody is asked
};

// Thread-safe.
class Incentives final : public ReceiptSink {
 public:
  // Takes up where the ledger stops. Errors of Ledger::Open and ContributionBook::Open.
  static absl::StatusOr<std::unique_ptr<Incentives>> Start(const IncentivesOptions& options,
                                                           const IncentivesParts& parts);
  // Ends the audits under way, and writes what is booked. Nothing is told to it any more.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  ~Incentives() override { Stop(); }

  void OnFork(const SequenceFork& fork) override { audits_->OnFork(fork); }
  void OnReceipt(const SignedReceipt& receipt, const std::vector<ClaimPtr>& claims) override {
    book_->OnReceipt(receipt, claims);
  }
  void OnAgreed(const ClaimPtr& claim) override { book_->OnAgreed(claim); }
  void OnDispute(const EdgeDispute& dispute) override { book_->OnDispute(dispute); }
  void OnRefused(const RefusedReceipt& refused) override { book_->OnRefused(refused); }

  Ledger& ledger() { return *ledger_; }
  ContributionBook& book() { return *book_; }
  AuditRunner& audits() { return *audits_; }

 private:
  // Who is here, as far as pay depends on it; of a moment ago at most.
  struct Census {
    std::map<NodeId, std::string> owners;
    std::vector<std::pair<LayerRange, std::string>> layers;  // and who holds them
    absl::Time taken = absl::InfinitePast();
  };

  explicit Incentives(const IncentivesParts& parts);
  ContributionParts BookParts();
  AuditRunnerParts AuditParts(const std::string& state_dir, const IncentiveRules& rules);
  // Who may verify for this stage.
  std::vector<AuditVerifier> Verifiers(const ReceiptStage& stage) ABSL_LOCKS_EXCLUDED(mu_);
  std::string OwnerOf(NodeId node) ABSL_LOCKS_EXCLUDED(mu_);
  Census CensusNow() ABSL_LOCKS_EXCLUDED(mu_);
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);

  const IncentivesParts parts_;
  const LotterySecret secret_;  // of this process's audits
  std::unique_ptr<Ledger> ledger_;
  std::unique_ptr<ContributionBook> book_;
  std::unique_ptr<AuditRunner> audits_;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  Census census_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_INCENTIVES_H_
