// The coordinator daemon, wired: one model, its cluster, its API.
#ifndef EFEDLLM_COORDINATOR_COORDINATOR_H_
#define EFEDLLM_COORDINATOR_COORDINATOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cluster/node_profile.h"
#include "cluster/planner.h"
#include "common/clock.h"
#include "coordinator/epoch_keeper.h"
#include "coordinator/incentives.h"
#include "coordinator/join_tokens.h"
#include "coordinator/kept_rows_source.h"
#include "coordinator/membership_rules.h"
#include "coordinator/node_drains.h"
#include "coordinator/receipt_checker.h"
#include "coordinator/receipt_sink.h"
#include "coordinator/scheduler.h"
#include "incentive/incentive_rules.h"
#include "svd/codec_policy.h"
#include "tensor/kv_type.h"

namespace efedllm {

// Right by construction (app/coord_options.h): nothing here is checked again.
struct CoordinatorOptions {
  std::string model;                    // path
  std::string draft_model;              // path; empty: none
  std::string state_dir;                // made where it is missing, 0700
  std::string listen = "0.0.0.0:7070";  // gRPC; port 0: any
  std::string http = "127.0.0.1:8080";  // port 0: any
  bool insecure = false;                // no TLS; listen is loopback then
  NodeProfile own;                      // what this machine may use, for computing alone
  std::string kernels = "auto";
  uint32_t context = 0;  // positions a sequence may have; 0: the model's, at most 8192
  SchedulerOptions scheduler;
  MembershipRules rules;
  CodecRequest codec;
  Layout layout = Layout::kAuto;
  size_t standby = 0;             // workers that get no layers, to take the place of others
  std::optional<KvType> kv_type;  // nullopt: what AutoKvType says
  bool receipts = true;  // workers sign what they compute, audits check it, the ledger has it
  IncentiveRules incentive_rules;
  absl::Duration ledger_head_interval = absl::Seconds(30);  // see LedgerHeadPublisher
  // Gets receipts in place of the coordinator's own book and audits. Borrowed, outlives it.
  ReceiptSink* receipt_sink = nullptr;
};

class Coordinator {
 public:
  // Listens on all its addresses when it returns; that an epoch serves is another matter. clock is
  // borrowed. FailedPrecondition: another coordinator holds the state dir; Unavailable: an address
  // is taken; others: the model or the state is bad, and how.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(const CoordinatorOptions& options,
                                                            const Clock& clock);
  // Stops at once, in order: API, scheduler, epoch and workers, servers.
  ~Coordinator();

  // Refuses new requests from now on, and waits until the running ones are done. False: they were
  // not in time.
  bool Drain(absl::Duration timeout);

  int listen_port() const;
  int http_port() const;
  const std::string& join_token() const;
  const std::string& model_id() const;
  JoinTokens& tokens();
  NodeDrains& drains();
  Scheduler& scheduler();
  ClusterStatus cluster_status() const;
  ReceiptChecker& receipts();
  KeptRowsSource& kept_rows();
  Incentives* incentives();  // null: nobody is paid (no receipts, or another sink)

 private:
  struct Parts;
  explicit Coordinator(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_COORDINATOR_H_
