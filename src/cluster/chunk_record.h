// Which chunks the steps of an epoch make. Every stage keeps such a record of what it computed, and
// the coordinator of what it sent and got back: by the same rules of the same steps, so that they
// agree on every chunk without a word (docs/receipts.md).
#ifndef EFEDLLM_CLUSTER_CHUNK_RECORD_H_
#define EFEDLLM_CLUSTER_CHUNK_RECORD_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/types/span.h"
#include "cluster/receipt.h"
#include "cluster/step.h"
#include "common/ids.h"
#include "common/sha256.h"

namespace efedllm {

// A row on one side of a stage.
struct RowSide {
  Sha256Digest digest = {};
  uint32_t codec = 0;  // 0: not known
  uint32_t bytes = 0;
};
struct RecordedRow {
  RowSide input, output;
};

// A chunk whose claim has digests of those sides alone whose rows are all known.
struct ClosedChunk {
  ChunkClaim claim;
  bool inputs_known = false, outputs_known = false;
};

// A chunk is some positions of one sequence that does not cross a multiple of kChunkTokens. It
// closes when a span of its sequence begins at that multiple or beyond it, or beyond the record's
// end; or when a trim shortens its sequence, with all it has. A span that begins earlier takes back
// what was recorded from there on, unless it is closed: then it is recorded once more. No clock
// closes any.
class ChunkRecord {
 public:
  // A step that went through. rows: of its spans, [step.tokens()]; none where only its trims and
  // forks happened.
  void Pass(const Step& step, absl::Span<const RecordedRow> rows, std::vector<ClosedChunk>& closed);
  // The epoch is over here.
  void CloseAll(std::vector<ClosedChunk>& closed);

 private:
  struct Open {
    uint32_t first = 0;
    std::vector<RecordedRow> rows;

    uint32_t end() const { return first + static_cast<uint32_t>(rows.size()); }
  };
  using Sequences = std::map<SequenceId, Open>;

  static void CloseUntil(SequenceId sequence, uint32_t end, Open& open,
                         std::vector<ClosedChunk>& closed);
  void Trim(const Step& step, std::vector<ClosedChunk>& closed);

  Sequences sequences_;
};

}  // namespace efedllm

#endif  // EFEDLLM_CLUSTER_CHUNK_RECORD_H_
