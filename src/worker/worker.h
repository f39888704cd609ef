// The worker daemon: joins a coordinator, holds the stage that it is given, and runs steps. Several
// can live in one process.
#ifndef EFEDLLM_WORKER_WORKER_H_
#define EFEDLLM_WORKER_WORKER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/node_profile.h"
#include "common/clock.h"
#include "layers/compute.h"
#include "model/weight_cache.h"
#include "net/audit_call.h"
#include "net/credentials.h"
#include "net/hop_kv.h"
#include "net/join_token.h"
#include "worker/control_session.h"
#include "worker/kept_rows.h"
#include "worker/ledger_heads.h"
#include "worker/node_state.h"
#include "worker/receipt_writer.h"
#include "worker/stage_tamper.h"

namespace efedllm {

struct WorkerOptions {
  std::string coordinator;           // HOST:PORT
  std::optional<JoinToken> token;    // none: the node enrolled before
  std::string state_dir;             // see node_state.h
  std::string name;                  // for people; printable, at most 64 bytes
  std::string listen = "0.0.0.0:0";  // where hops come in; port 0: any free one
  std::string advertise;  // HOST:PORT or HOST that peers dial; empty: as the coordinator sees it
  int threads = 1;        // that compute
  std::string kernels = "auto";  // see Compute::Create
  uint64_t memory_bytes = 0;     // 0: see MeasureNode
  bool insecure = false;         // no TLS; loopback addresses only
  bool draw_bar = false;         // progress on the terminal
  std::string engine_version;
  std::string owner;  // whom the node works for, where its join token does not say
  // What it keeps of rows for audits: in memory, of which an eighth of what the node offers may be
  // for that, and then in the state folder.
  uint64_t kept_rows_memory_bytes = uint64_t{24} << 20;
  uint64_t kept_rows_disk_bytes = uint64_t{1} << 30;

  std::optional<NodeProfile> profile;  // none: measured
  // Between attempts to reach the coordinator: with jitter, from the least up to most, and up to
  // late_backoff when it has been away for minutes. After retry_for the worker gives up.
  absl::Duration least_backoff = absl::Milliseconds(100);
  absl::Duration most_backoff = absl::Seconds(1);
  absl::Duration late_backoff = absl::Seconds(15);
  absl::Duration retry_for = absl::Hours(24);
  std::function<void()> on_attached;  // each time; may be empty
  StageTamper tamper;                 // of tests; empty: it works as it should
};

// Ends by itself only when it makes no sense to go on: see IsRefusal, and WorkerOptions::retry_for.
class Worker {
 public:
  // Opens the state folder and measures the machine (about a second). InvalidArgument: options that
  // can't be; FailedPrecondition: the state folder is in use.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(const WorkerOptions& options,
                                                        const Clock& clock);
  ~Worker();  // Stop and wait

  // Once.
  void Start();
  // Leaves the cluster in good order; returns at once. Thread-safe.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  // The end: OK after Stop, else why. nullopt: it still runs after the timeout. Thread-safe.
  std::optional<absl::Status> Wait(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);

  NodeId node() const { return state_->node(); }
  const NodeProfile& profile() const { return profile_; }

 private:
  // How an attempt to serve ended, and whether to try again.
  struct Attempt {
    absl::Status status;
    bool attached = false;
    bool final = false;
  };

  // What is served on the port where hops come in. Borrowed.
  struct Served {
    HopReceiver& receiver;
    KvReceiver& kv;
    AuditServer& replay;
    int port = 0;
  };

  Worker(const WorkerOptions& options, const Clock& clock) : options_(options), clock_(clock) {}

  absl::Status Loop() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status GiveUp(const absl::Status& why) const;
  Attempt Serve() ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Identity> ObtainIdentity();
  absl::StatusOr<Transport> MakeTransport(std::optional<Identity>& identity);
  Attempt Attach(const Transport& transport, const std::optional<Identity>& identity);
  Attempt RunSession(const Transport& transport, const std::optional<Identity>& identity,
                     const Served& served);
  // True when there is a new certificate in the state folder. Tries now and then while one is due.
  bool RenewIfDue(v1::Cluster::StubInterface& stub, const Identity& identity);
  absl::Status Explain(const absl::Status& status, const Identity& identity) const;
  Hello MakeHello(int port) const;
  bool stop_requested() const ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after Create.
  const WorkerOptions options_;
  const Clock& clock_;
  std::unique_ptr<NodeState> state_;
  std::unique_ptr<WeightCache> cache_;
  std::unique_ptr<KeptRows> rows_;
  std::unique_ptr<ReceiptWriter> receipts_;
  std::unique_ptr<HeldLedgerHeads> heads_;
  Compute compute_;
  NodeProfile profile_;

  absl::Time next_renewal_ = absl::InfinitePast();  // of thread_

  mutable absl::Mutex mu_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mu_);

  std::thread thread_;
};

// The coordinator, or this worker itself, will say the same again however often it is asked: a
// wrong or revoked token, another protocol version, another coordinator.
bool IsRefusal(const absl::Status& status);

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_WORKER_H_
