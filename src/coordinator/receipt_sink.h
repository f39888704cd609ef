// What becomes of receipts once they are checked: audits choose among claims, the ledger books
// them.
#ifndef EFEDLLM_COORDINATOR_RECEIPT_SINK_H_
#define EFEDLLM_COORDINATOR_RECEIPT_SINK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "cluster/receipt.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "wire/cluster_wire.h"

namespace efedllm {

// One stage of an epoch that serves or served. Immutable.
struct ReceiptStage {
  NodeId node;
  std::string address;  // where it serves hops and kept rows
  uint32_t chain = 0;
  Assignment assignment;  // epoch, stage, layers, tensors, codecs, bases
  Sha256Digest manifest = {};
};

// A chunk of a receipt that was taken: signed by its node, with the next number, of positions that
// the coordinator had asked this stage for.
struct TakenClaim {
  std::shared_ptr<const ReceiptStage> stage;
  uint64_t receipt_number = 0;
  uint32_t chunk_index = 0;  // in the receipt: (node, epoch, receipt_number, chunk_index) is unique
  ChunkClaim claim;
};

// Two neighbours claim other bytes on the edge between them. The coordinator's own word stands at
// either end of a chain: its node is 0 then.
struct EdgeDispute {
  Epoch epoch;
  uint32_t chain = 0;
  std::shared_ptr<const TakenClaim> upstream;    // by its outputs; null: the coordinator
  std::shared_ptr<const TakenClaim> downstream;  // by its inputs; null: the coordinator
  SequenceId sequence;
  uint32_t first_position = 0;
  uint32_t tokens = 0;
};

enum class ReceiptRefusal {
  kUnknownStage,  // not of an epoch and stage that this node has, or lately had: no blame
  kNumber,        // left out or said twice
  kSignature,     // not by this node's key
  kManifest,      // other layers, weights, codecs or numerics than it was assigned
  kNotAsked,      // positions that nobody asked this stage for, or claimed before
  kTime,          // more time of computing than there was since its epoch began
  kBehind,        // what becomes of receipts can't keep up with them: no blame
};
inline constexpr size_t kReceiptRefusals = 7;
absl::string_view ReceiptRefusalName(ReceiptRefusal refusal);

struct RefusedReceipt {
  SignedReceipt receipt;
  ReceiptRefusal why = ReceiptRefusal::kUnknownStage;
  std::string detail;  // what was wrong with it, in words
};

// Called on one thread of the checker's own, with no lock held: no step and no receipt waits for
// it, but while it is far behind, receipts are refused (kBehind).
class ReceiptSink {
 public:
  virtual ~ReceiptSink() = default;
  // A sequence begins with another's positions; before any claim of it.
  virtual void OnFork(const SequenceFork& /*fork*/) {}
  // All claims of a receipt, which is countersigned by then.
  virtual void OnReceipt(const SignedReceipt& receipt,
                         const std::vector<std::shared_ptr<const TakenClaim>>& claims) = 0;
  // Both its edges were compared, as far as there was something to compare with, and agree. Not all
  // claims come to that: where a step failed or an epoch broke off, stages differ in what they
  // computed, and audits alone decide.
  virtual void OnAgreed(const std::shared_ptr<const TakenClaim>& claim) = 0;
  virtual void OnDispute(const EdgeDispute& dispute) = 0;
  virtual void OnRefused(const RefusedReceipt& refused) = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_RECEIPT_SINK_H_
