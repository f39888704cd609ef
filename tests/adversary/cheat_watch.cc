#include "adversary/cheat_watch.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace efedllm {

StageTamper CheatWatch::Watch(StageTamper cheat) {
  StageTamper watched;
  watched.weights = cheat.weights;
  watched.replayed = cheat.replayed;
  const bool all_wrong = cheat.weights != nullptr;
  watched.outputs = [this, all_wrong, outputs = std::move(cheat.outputs)](
                        const Step& step, ConstMatrixRef inputs, MatrixRef hidden) {
    const std::vector<float> before(hidden.data, hidden.data + hidden.rows * hidden.cols);
    if (outputs) outputs(step, inputs, hidden);
    std::vector<bool> wrong(hidden.rows, all_wrong);
    for (size_t row = 0; row < hidden.rows; ++row) {
      if (std::memcmp(before.data() + row * hidden.cols, hidden.row(row),
                      hidden.cols * sizeof(float)) != 0) {
        wrong[row] = true;
      }
    }
    Computed(step, wrong);
  };
  watched.receipt = [this, receipt = std::move(cheat.receipt)](Receipt& made) {
    const Receipt before = made;
    if (receipt) receipt(made);
    Made(before, made != before);
  };
  return watched;
}

void CheatWatch::Computed(const Step& step, const std::vector<bool>& wrong) {
  absl::MutexLock lock(&mu_);
  size_t row = 0;
  for (const SequenceSpan& span : step.spans) {
    for (uint32_t i = 0; i < span.tokens && row < wrong.size(); ++i, ++row) {
      if (wrong[row]) {
        if (first_wrong_.is_null()) {
          first_wrong_ = {{"epoch", step.epoch.v},
                          {"sequence", span.sequence.v},
                          {"position", span.first_position + i}};
          tokens_before_ = tokens_;
        }
        ++wrong_tokens_;
        wrong_.insert({span.sequence.v, (span.first_position + i) / kChunkTokens});
      }
      ++tokens_;
    }
  }
}

void CheatWatch::Made(const Receipt& receipt, bool changed) {
  absl::MutexLock lock(&mu_);
  ++receipts_;
  uint64_t tokens = 0, wrong = 0;
  for (const ChunkClaim& chunk : receipt.chunks) {
    tokens += chunk.tokens;
    wrong += wrong_.count({chunk.sequence.v, chunk.first_position / kChunkTokens});
  }
  wrong_chunks_ += wrong;
  if (!changed && wrong == 0) return;
  ++wrong_receipts_;
  if (first_wrong_receipt_.is_null()) {
    first_wrong_receipt_ = {{"epoch", receipt.epoch.v}, {"number", receipt.number}};
  }
  if (!first_wrong_.is_null() || receipt.chunks.empty()) return;
  tokens_before_ = tokens_ - std::min(tokens, tokens_);  // what is in it was computed before
  first_wrong_ = {{"epoch", receipt.epoch.v},
                  {"sequence", receipt.chunks[0].sequence.v},
                  {"position", receipt.chunks[0].first_position}};
}

nlohmann::json CheatWatch::ToJson() const {
  absl::MutexLock lock(&mu_);
  return {{"tokens", tokens_},
          {"wrong_tokens", wrong_tokens_},
          {"tokens_before", tokens_before_},
          {"first_wrong", first_wrong_},
          {"receipts", receipts_},
          {"wrong_receipts", wrong_receipts_},
          {"first_wrong_receipt", first_wrong_receipt_},
          {"wrong_chunks", wrong_chunks_}};
}

}  // namespace efedllm
