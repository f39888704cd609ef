// The workers' side door: control streams, weights, new certificates. All need a client
// certificate.
#ifndef EFEDLLM_COORDINATOR_CONTROL_SERVICE_H_
#define EFEDLLM_COORDINATOR_CONTROL_SERVICE_H_

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "coordinator/enrolment_service.h"
#include "coordinator/epoch_keeper.h"
#include "coordinator/ledger_head_publisher.h"
#include "coordinator/receipt_checker.h"
#include "coordinator/weight_server.h"
#include "net/credentials.h"
#include "wire/cluster_service.h"

namespace efedllm {

// Thread-safe. Everything is borrowed and outlives the grpc::Server that this is registered with.
class ControlService final : public v1::Cluster::CallbackService {
 public:
  // heads: null where there is no ledger.
  ControlService(const Transport& transport, EpochKeeper& keeper, WeightServer& weights,
                 Enroller& enroller, ReceiptChecker& receipts, bool want_receipts,
                 LedgerHeadPublisher* heads = nullptr)
      : transport_(transport),
        keeper_(keeper),
        weights_(weights),
        enroller_(enroller),
        receipts_(receipts),
        want_receipts_(want_receipts),
        heads_(heads) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Attach(
      grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::TensorChunk>* FetchTensor(
      grpc::CallbackServerContext* context, const v1::FetchTensorRequest* request) override;
  grpc::ServerUnaryReactor* Renew(grpc::CallbackServerContext* context,
                                  const v1::RenewRequest* request, v1::EnrolReply* reply) override;

 private:
  const Transport& transport_;
  EpochKeeper& keeper_;
  WeightServer& weights_;
  Enroller& enroller_;
  ReceiptChecker& receipts_;
  const bool want_receipts_;
  LedgerHeadPublisher* const heads_;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_CONTROL_SERVICE_H_
