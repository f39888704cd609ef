// The rows that a worker's stages took in and sent out, for the time of an audit window: what comes
// behind its receipts.
#ifndef EFEDLLM_WORKER_KEPT_ROWS_H_
#define EFEDLLM_WORKER_KEPT_ROWS_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cluster/chunk_record.h"
#include "cluster/receipt.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "svd/encoded_rows.h"
#include "wire/receipt_wire.h"
#include "worker/row_log.h"

namespace efedllm {

// One side of a step's rows.
struct KeptSide {
  const EncodedRows& rows;
  uint32_t codec = 0;
};

// Thread-safe.
class KeptRows final {
 public:
  // memory_bytes are for both, half of it each: the rows' bytes, and where they are.
  explicit KeptRows(RowLogOptions options);

  // The stage of this epoch goes on with the KV, and so with the rows, of an earlier one.
  void Continue(Epoch epoch, Epoch earlier) ABSL_LOCKS_EXCLUDED(mu_);

  // A step that the stage of this epoch computed: its forks, and its spans' rows on both sides.
  void Add(Epoch epoch, const Step& step, const KeptSide& inputs, const KeptSide& outputs)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The forks of a step that it did not compute.
  void AddForks(Epoch epoch, const Step& step) ABSL_LOCKS_EXCLUDED(mu_);
  // What stands at these positions now stays as a version of its own when it is computed again.
  void MarkClaimed(Epoch epoch, absl::Span<const ClosedChunk> chunks) ABSL_LOCKS_EXCLUDED(mu_);

  // The first rows of what is asked for, up to kKeptRowsReplyBytes, at least one. NotFound: there
  // is no such version, or the first row was never here, or was dropped.
  absl::StatusOr<std::vector<CodedRow>> Find(const KeptRowsRequest& request) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // The same, as bytes.
  absl::StatusOr<grpc::ByteBuffer> FindRows(const grpc::ByteBuffer& request) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // Now and then: keeps the limits.
  void Tend() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Row {
    uint64_t offset = 0;  // inputs, then outputs
    uint32_t input_bytes = 0, output_bytes = 0;
    uint16_t input_codec = 0, output_codec = 0;  // 0: never here
  };
  // By position. What was computed last is in front; what it took the place of follows.
  struct Sequence {
    std::vector<std::vector<Row>> versions;
    uint32_t claimed_end = 0;  // of the first version
    uint64_t used = 0;         // the log's end when rows were added, or it was forked
  };
  // Of epochs that went on with each other's KV.
  using Lineage = std::map<SequenceId, Sequence>;

  Lineage& LineageOf(Epoch epoch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Renew(Row& row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Fork(Lineage& lineage, const Step& step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddVersion(Sequence& sequence, std::vector<Row> rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropVersion(Sequence& sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // the oldest
  std::vector<Row>& RowsFrom(Lineage& lineage, SequenceId id, uint32_t first)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Complain(const absl::Status& tended) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropOld() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What stands there, and may be gone when it is read.
  absl::StatusOr<std::vector<Row>> RowsOf(const KeptRowsRequest& request) const
      ABSL_LOCKS_EXCLUDED(mu_);
  void DropUnused(uint64_t since) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint64_t most_rows_;
  RowLog log_;
  mutable absl::Mutex mu_;
  std::map<Epoch, std::shared_ptr<Lineage>> lineages_ ABSL_GUARDED_BY(mu_);
  // Of all versions, with what one costs beside its rows.
  uint64_t rows_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t swept_ ABSL_GUARDED_BY(mu_) = 0;  // the log's oldest at the last DropOld
  absl::Time next_complaint_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_KEPT_ROWS_H_
