#include "worker/stage_slots.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "model/weights.h"
#include "wire/frame_epoch.h"
#include "wire/kv_wire.h"

namespace efedllm {
namespace {

constexpr size_t kMostLineage = 64;  // epochs that one KV can have gone through and be known by

bool SameWeights(const Assignment& a, const Assignment& b) {
  return a.layers == b.layers && a.config == b.config && a.tensors == b.tensors;
}

// What the executor was made for is what the assignment wants, or more.
bool SuitsExecutor(const StageOptions& have, const Assignment& wanted) {
  return have.kv_type == wanted.kv_type && have.kv_tokens == wanted.kv_tokens &&
         have.limits == wanted.limits && (have.keep_outputs || !wanted.keep_outputs);
}

uint64_t KvBytesPerToken(const Assignment& assignment) {
  return StageKvBytesPerToken(assignment.config, assignment.kv_type, assignment.layers.size(),
                              assignment.keep_outputs);
}

uint64_t KvBytes(const Assignment& assignment) {
  return assignment.kv_tokens * KvBytesPerToken(assignment);
}

}  // namespace

bool StageSlots::MayAdopt(const HeldStage& from, const Assignment& assignment) {
  if (from.executor_ == nullptr || assignment.continues.v == 0) return false;
  const auto& lineage = from.lineage_;
  return std::find(lineage.begin(), lineage.end(), assignment.continues) != lineage.end() &&
         SameWeights(from.assignment(), assignment) &&
         SuitsExecutor(from.executor_->options(), assignment);
}

bool StageSlots::CanContinue(const Assignment& assignment) const {
  return running_ != nullptr && MayAdopt(*running_, assignment);
}

uint64_t StageSlots::BytesBeside(const Assignment& assignment) const {
  uint64_t bytes = KvBytes(assignment);
  absl::flat_hash_set<Sha256Digest> counted;
  const auto count = [&](const Assignment& of) {
    for (const TensorSpec& tensor : of.tensors) {
      if (counted.insert(tensor.id()).second) bytes += PackedBytes(tensor);
    }
  };
  count(assignment);
  if (running_ == nullptr) return bytes;
  count(running_->assignment());
  return bytes + KvBytes(running_->assignment());
}

void StageSlots::Prepare(std::shared_ptr<HeldStage> stage) {
  CHECK(stage->executor_ != nullptr || CanContinue(stage->assignment()));
  End(prepared_);
  prepared_ = std::move(stage);
}

std::shared_ptr<HeldStage> StageSlots::StageOf(NodeId peer, const grpc::ByteBuffer& frame) const {
  const std::optional<Epoch> epoch = FrameEpoch(frame);
  const auto fits = [&](const std::shared_ptr<HeldStage>& stage) {
    return stage != nullptr && stage->life() <= StageLife::kRunning && stage->upstream() == peer &&
           (!epoch || stage->epoch() == *epoch);
  };
  return fits(running_) ? running_ : fits(prepared_) ? prepared_ : nullptr;
}

bool StageSlots::Enter(const std::shared_ptr<HeldStage>& stage) {
  if (stage != prepared_) return stage->running();
  if (stage->executor_ == nullptr) {
    CHECK(running_ != nullptr);  // Prepare saw it; only Release drops it, and this one with it
    stage->executor_ = running_->executor_;
    if (stage->receipts_) stage->receipts_->Continue(running_->epoch());
    auto& lineage = stage->lineage_;
    lineage.insert(lineage.end(), running_->lineage_.begin(), running_->lineage_.end());
    if (lineage.size() > kMostLineage) lineage.resize(kMostLineage);
  }
  End(running_);
  running_ = std::move(prepared_);
  prepared_ = nullptr;
  running_->life_ = StageLife::kRunning;
  return true;
}

bool StageSlots::Halt(const HeldStage& stage) {
  if (&stage == prepared_.get()) {
    End(prepared_);
    return true;
  }
  if (&stage != running_.get() || !stage.running()) return false;
  running_->life_ = StageLife::kHalted;
  if (running_->receipts_) running_->receipts_->Close();
  return true;
}

void StageSlots::End(std::shared_ptr<HeldStage>& slot) {
  if (slot == nullptr) return;
  slot->life_ = StageLife::kEnded;
  if (slot->receipts_) slot->receipts_->Close();
  ended_.push_back(std::move(slot));
  slot = nullptr;
}

void StageSlots::DropPrepared() { End(prepared_); }

void StageSlots::DropRunning() {
  // What would have gone on with its KV can't.
  if (prepared_ != nullptr && prepared_->executor_ == nullptr) End(prepared_);
  End(running_);
}

void StageSlots::Release() {
  End(prepared_);
  End(running_);
}

absl::StatusOr<grpc::ByteBuffer> StageSlots::Export(Epoch epoch, Epoch next_epoch,
                                                    const KvExtent& extent, uint32_t& first) const {
  if (running_ == nullptr || running_->epoch() != epoch || running_->life() != StageLife::kHalted) {
    return absl::NotFoundError(absl::StrCat("the stage of epoch ", epoch.v, " has ended"));
  }
  const KvExtentFrame frame{
      next_epoch, extent.sequence, first,
      std::min(extent.length - first, KvFrameTokens(KvBytesPerToken(running_->assignment())))};
  std::string kv;
  RETURN_IF_ERROR(
      running_->executor_->ExportKv(frame.sequence, frame.first_position, frame.tokens, kv));
  first += frame.tokens;
  return KvToWire(frame, std::move(kv));
}

absl::Status StageSlots::CheckImport(Epoch epoch) const {
  const bool takes = prepared_ != nullptr && prepared_->epoch() == epoch &&
                     prepared_->executor_ != nullptr && prepared_->assignment().continues.v != 0;
  if (takes) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this node has prepared no stage of epoch ", epoch.v, " that takes KV"));
}

absl::Status StageSlots::Import(const grpc::ByteBuffer& frame) {
  if (prepared_ == nullptr) return CheckImport(Epoch{0});
  const Assignment& assignment = prepared_->assignment();
  KvExtentFrame extent;
  grpc::Slice memory;
  absl::string_view kv;
  RETURN_IF_ERROR(KvFromWire(frame, KvBytesPerToken(assignment), assignment.limits.max_position,
                             extent, memory, kv));
  RETURN_IF_ERROR(CheckImport(extent.next_epoch));
  return prepared_->executor_->ImportKv(extent.sequence, extent.first_position, extent.tokens, kv);
}

absl::Status StageSlots::FinishImport(Epoch epoch) {
  RETURN_IF_ERROR(CheckImport(epoch));
  prepared_->lineage_.push_back(prepared_->assignment().continues);
  return absl::OkStatus();
}

std::vector<NodeId> StageSlots::upstreams() const {
  std::vector<NodeId> nodes;
  if (running_ != nullptr) nodes.push_back(running_->upstream());
  if (prepared_ != nullptr) nodes.push_back(prepared_->upstream());
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  return nodes;
}

std::vector<std::shared_ptr<HeldStage>> StageSlots::TakeEnded() {
  return std::exchange(ended_, {});
}

}  // namespace efedllm
