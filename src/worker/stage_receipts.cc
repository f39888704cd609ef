#include "worker/stage_receipts.h"

#include <utility>

#include "common/check.h"
#include "wire/receipt_wire.h"

namespace efedllm {

StageReceipts::StageReceipts(const Assignment& assignment, KeptRows& keep, ReceiptWriter& writer)
    : facts_{assignment.epoch, assignment.stage, assignment.layers, ManifestOf(assignment)},
      keep_(keep),
      writer_(writer) {}

StageReceipts::~StageReceipts() { Close(); }

void StageReceipts::Continue(Epoch earlier) { keep_.Continue(facts_.epoch, earlier); }

void StageReceipts::Computed(const Step& step, const DigestedRows& inputs,
                             const DigestedRows& outputs, absl::Duration compute,
                             absl::Duration wait) {
  CHECK(inputs.sides.size() == step.tokens() && outputs.sides.size() == step.tokens());
  absl::MutexLock lock(&mu_);
  compute_ += compute;
  wait_ += wait;
  rows_.clear();
  for (size_t i = 0; i < inputs.sides.size(); ++i) {
    rows_.push_back({inputs.sides[i], outputs.sides[i]});
  }
  record_.Pass(step, rows_, closed_);
  keep_.MarkClaimed(facts_.epoch, closed_);
  keep_.Add(facts_.epoch, step, {inputs.rows, inputs.codec}, {outputs.rows, outputs.codec});
  // Nobody waits for a step that came after the last.
  if (over_) record_.CloseAll(closed_);
  Tell();
}

void StageReceipts::Passed(const Step& step) {
  absl::MutexLock lock(&mu_);
  record_.Pass(step, {}, closed_);
  keep_.MarkClaimed(facts_.epoch, closed_);
  keep_.AddForks(facts_.epoch, step);
  Tell();
}

void StageReceipts::Close() {
  absl::MutexLock lock(&mu_);
  over_ = true;
  record_.CloseAll(closed_);
  keep_.MarkClaimed(facts_.epoch, closed_);
  Tell();
}

void StageReceipts::Tell() {
  if (closed_.empty()) return;
  writer_.Add(facts_, closed_, std::exchange(compute_, absl::ZeroDuration()),
              std::exchange(wait_, absl::ZeroDuration()));
  closed_.clear();
}

}  // namespace efedllm
