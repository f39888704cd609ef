// Computes again what a stage claims to have computed, from the very bytes that came in to the very
// bytes that went out. Numerics are exact, so what differs by a bit was not computed honestly, or
// not by sound hardware.
#ifndef EFEDLLM_COORDINATOR_AUDIT_REPLAY_H_
#define EFEDLLM_COORDINATOR_AUDIT_REPLAY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cluster/receipt.h"
#include "cluster/stage_plan.h"
#include "model/stage_replay.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "tensor/kv_type.h"
#include "tensor/matrix.h"

namespace efedllm {

using BasisPtr = std::shared_ptr<const BoundaryBasis>;  // null: the boundary has none

// Rows that were coded with one basis.
struct CodedRows {
  BasisPtr basis;
  std::vector<CodedRow> rows;
};

// out: [rows, d_model]. InvalidArgument, DataLoss: a row is not one of any setting of this build,
// or of a basis that there is not, or not finite; which row.
absl::Status DecodeRows(absl::Span<const CodedRow> rows, const BasisPtr& basis, MatrixRef out);
// Each by itself, as receipts count them.
std::vector<CodedRow> EncodeRows(ConstMatrixRef rows, CodecSetting setting, const BasisPtr& basis);

// What a stage computes with, as its receipts' manifest has it.
struct ReplayedStage {
  LayerRange layers;
  KvType kv_type = KvType::kF32;
  CodecSetting output_codec;
  BasisPtr output_basis;  // null where the codec needs none
};

// One sequence: what went in at positions 0, 1, ... in pieces, and from where on the outputs are
// wanted.
struct ReplayedSequence {
  std::vector<CodedRows> inputs;
  uint32_t first_wanted = 0;

  uint32_t positions() const {
    size_t sum = 0;
    for (const CodedRows& piece : inputs) sum += piece.rows.size();
    return static_cast<uint32_t>(sum);
  }
};

// What came out of one.
struct ReplayedRows {
  Matrix values;                    // [positions - first_wanted, d_model]
  std::vector<CodedRow> coded;      // the same as coded
  std::vector<Matrix> after_layer;  // as values, after each layer of the stage; if asked for
  absl::Status undecodable;  // the inputs are none that a stage can compute with; nothing else then
};

// Sequences of one stage in one pass. hooks: only before_step is used. InvalidArgument: there is
// nothing wanted, or more positions than the model has; others as StageReplay::Run.
absl::StatusOr<std::vector<ReplayedRows>> ReplayStage(
    StageReplay& replay, const ReplayedStage& stage, absl::Span<const ReplayedSequence> sequences,
    bool keep_layers, const std::function<absl::Status(double share)>& before_step);

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_AUDIT_REPLAY_H_
