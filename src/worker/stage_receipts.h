// What one stage, in one epoch, does for its receipts.
#ifndef EFEDLLM_WORKER_STAGE_RECEIPTS_H_
#define EFEDLLM_WORKER_STAGE_RECEIPTS_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cluster/chunk_record.h"
#include "common/ids.h"
#include "svd/encoded_rows.h"
#include "wire/cluster_wire.h"
#include "worker/kept_rows.h"
#include "worker/receipt_writer.h"

namespace efedllm {

// A step's rows on one side of the stage, with their digests. Its memory is reused.
struct DigestedRows {
  EncodedRows rows;
  uint32_t codec = 0;
  std::vector<RowSide> sides;
};

// Thread-safe.
class StageReceipts {
 public:
  // keep and writer are borrowed and outlive this.
  StageReceipts(const Assignment& assignment, KeptRows& keep, ReceiptWriter& writer);
  // Closes what is open.
  ~StageReceipts();

  // The stage goes on with the KV of this epoch.
  void Continue(Epoch earlier);
  // A step that the stage computed, in the order of steps.
  void Computed(const Step& step, const DigestedRows& inputs, const DigestedRows& outputs,
                absl::Duration compute, absl::Duration wait) ABSL_LOCKS_EXCLUDED(mu_);
  // A step of which it computed nothing: only its trims and forks happened.
  void Passed(const Step& step) ABSL_LOCKS_EXCLUDED(mu_);
  // The stage computes no more.
  void Close() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Tell() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ReceiptStageFacts facts_;
  KeptRows& keep_;
  ReceiptWriter& writer_;

  absl::Mutex mu_;
  bool over_ ABSL_GUARDED_BY(mu_) = false;
  ChunkRecord record_ ABSL_GUARDED_BY(mu_);
  std::vector<RecordedRow> rows_ ABSL_GUARDED_BY(mu_);
  std::vector<ClosedChunk> closed_ ABSL_GUARDED_BY(mu_);
  absl::Duration compute_ ABSL_GUARDED_BY(mu_), wait_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_RECEIPTS_H_
