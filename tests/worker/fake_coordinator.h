// A coordinator for tests of the worker: a real gRPC server with real TLS that says just what the
// test wants.
#ifndef EFEDLLM_TESTS_WORKER_FAKE_COORDINATOR_H_
#define EFEDLLM_TESTS_WORKER_FAKE_COORDINATOR_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "cluster/step.h"
#include "model/model_file.h"
#include "model/weights.h"
#include "net/hop.h"
#include "net/hop_kv.h"
#include "net/join_token.h"
#include "net/net_world.h"
#include "wire/cluster_service.h"
#include "wire/cluster_wire.h"
#include "wire/handover_wire.h"
#include "wire/step_wire.h"

namespace efedllm {

// Thread-safe.
class FakeCoordinator final : public v1::Enrolment::Service, public v1::Cluster::Service {
 public:
  // model: GGUF bytes, borrowed. port 0: any.
  explicit FakeCoordinator(absl::Span<const uint8_t> model, int port = 0, bool insecure = false);
  ~FakeCoordinator() override;

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  int port() const { return port_; }
  JoinToken token() const { return {ca_.authority().fingerprint(), std::string(16, 's')}; }
  // Of another node that joined it.
  Transport NewNode() const { return Transport::Tls(ca_.Node()); }
  const ModelConfig& config() const { return config_; }

  // An assignment of these layers, with this coordinator as upstream and downstream.
  Assignment MakeAssignment(Epoch epoch, LayerRange layers) const;

  // To the worker that is attached.
  void Send(const v1::CoordinatorMessage& message) ABSL_LOCKS_EXCLUDED(mu_);
  void Assign(const Assignment& assignment);
  void Release(Epoch epoch);
  void HandOverTo(const HandOver& hand_over);
  void SendPrefetch(const std::vector<TensorSpec>& tensors);
  // Ends the control stream.
  void Detach() ABSL_LOCKS_EXCLUDED(mu_);

  // Each waits up to a few seconds.
  bool AwaitAttached(int times = 1) ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<StageReport> AwaitReport(Epoch epoch, StageState state) ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<StageReport> AwaitReport(const std::function<bool(const StageReport&)>& matches)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<HandedOver> AwaitHandedOver() ABSL_LOCKS_EXCLUDED(mu_);
  bool AwaitMessage(const std::function<bool(const v1::WorkerMessage&)>& matches)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<StepFrame> AwaitStep(const StepLimits& limits);

  // The edge into the worker that attached last.
  std::unique_ptr<HopSender> OpenHop();
  std::unique_ptr<KvSender> OpenKv(Epoch next_epoch);
  Hello hello() const ABSL_LOCKS_EXCLUDED(mu_);

  // What goes wrong. Set before it can happen.
  struct Faults {
    grpc::Status enrol = grpc::Status::OK;
    grpc::Status attach = grpc::Status::OK;
    int corrupt_chunks = 0;       // the next so many chunks arrive with a bit flipped
    int break_after_chunks = -1;  // then every fetch breaks; -1: never
    absl::Duration chunk_delay;   // before each chunk
    bool ignore_leaving = false;
    bool silent = false;  // no pings, which else answer each heartbeat
  };
  void SetFaults(const Faults& faults) ABSL_LOCKS_EXCLUDED(mu_);

  int enrolments() const ABSL_LOCKS_EXCLUDED(mu_);
  int renewals() const ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t chunks_sent() const ABSL_LOCKS_EXCLUDED(mu_);
  int fetches() const ABSL_LOCKS_EXCLUDED(mu_);

  grpc::Status Enrol(grpc::ServerContext* context, const v1::EnrolRequest* request,
                     v1::EnrolReply* reply) override;
  grpc::Status Renew(grpc::ServerContext* context, const v1::RenewRequest* request,
                     v1::EnrolReply* reply) override;
  grpc::Status Attach(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>* stream) override;
  grpc::Status FetchTensor(grpc::ServerContext* context, const v1::FetchTensorRequest* request,
                           grpc::ServerWriter<v1::TensorChunk>* writer) override;

 private:
  using ControlStream = grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>;

  grpc::Status Sign(const std::string& request, v1::EnrolReply& reply) const;
  // The chunk as it shall arrive. False: the fetch breaks here.
  bool NextChunk(std::string& data) ABSL_LOCKS_EXCLUDED(mu_);
  bool AwaitUntil(const std::function<bool()>& condition) ABSL_LOCKS_EXCLUDED(mu_);

  // Constant after construction.
  TestCa ca_;
  ModelFile file_;
  ModelConfig config_;
  Transport transport_;
  std::unique_ptr<HopReceiver> receiver_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  absl::flat_hash_map<std::string, std::string> tensors_;  // GGUF bytes by id
  std::vector<TensorSpec> specs_;

  mutable absl::Mutex mu_;
  Faults faults_ ABSL_GUARDED_BY(mu_);
  ControlStream* stream_ ABSL_GUARDED_BY(mu_) = nullptr;
  grpc::ServerContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;
  NodeId worker_ ABSL_GUARDED_BY(mu_);
  Hello hello_ ABSL_GUARDED_BY(mu_);
  std::vector<v1::WorkerMessage> messages_ ABSL_GUARDED_BY(mu_);
  int attached_ ABSL_GUARDED_BY(mu_) = 0;
  int enrolments_ ABSL_GUARDED_BY(mu_) = 0;
  int renewals_ ABSL_GUARDED_BY(mu_) = 0;
  int fetches_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t chunks_sent_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_WORKER_FAKE_COORDINATOR_H_
