#include "app/coded_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cluster/stage_timing.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "tensor/half.h"
#include "wire/step_wire.h"

namespace efedllm {
namespace {

constexpr size_t kBlock = 32;

// A frame's header as it is after some thousand requests, and some hundred thousand steps: its
// numbers take as many bytes.
Step ServedStep(const Step& step, uint64_t number) {
  constexpr uint64_t kSequences = 5'000, kSteps = 200'000;
  Step served = step;
  served.epoch = Epoch{3};
  served.id = StepId{kSteps + number};
  for (SequenceSpan& span : served.spans) span.sequence.v += kSequences;
  for (SequenceTrim& trim : served.trims) trim.sequence.v += kSequences;
  return served;
}

// Of the stages before a boundary, each of which received such a frame.
std::vector<StageTiming> TimingsOf(size_t stages, size_t payload_bytes) {
  StageTiming timing;
  timing.received_micros = 1'800'000'000'000'000;
  timing.decode_micros = 300;
  timing.queue_micros = 300;
  timing.compute_micros = 30'000;
  timing.encode_micros = 300;
  timing.received_bytes = static_cast<uint32_t>(payload_bytes);
  std::vector<StageTiming> timings;
  timings.reserve(stages);
  for (size_t i = 0; i < stages; ++i) {
    timing.node = NodeId{0x9e3779b97f4a7c15 * (i + 1)};
    timings.push_back(timing);
    timing.received_micros += 31'000;
  }
  return timings;
}

double Energy(ConstMatrixRef rows) {
  double sum = 0;
  for (const float value : rows.span()) sum += double{value} * value;
  return sum;
}

double PerRow(uint64_t count, uint64_t rows) {
  return rows == 0 ? 0 : static_cast<double>(count) / static_cast<double>(rows);
}

}  // namespace

std::string BoundaryCoding::Label() const {
  return block_bits == 0 ? CodecLabel(setting) : absl::StrCat("int", block_bits, " blocks");
}

double BoundaryTraffic::payload_per_row() const { return PerRow(payload_bytes, rows); }
double BoundaryTraffic::bytes_per_row() const { return PerRow(frame_bytes, rows); }
double BoundaryTraffic::plain_share() const { return PerRow(plain_rows, rows); }

CodedModel::CodedModel(LocalModel& model, const BoundaryBases& bases) : model_(model) {
  const std::vector<LayerRange>& stages = model.options().stages;
  for (size_t i = 1; i < stages.size(); ++i) {
    const uint32_t boundary = stages[i].first;
    const auto basis = std::find_if(bases.begin(), bases.end(), [&](const auto& candidate) {
      return candidate->boundary == boundary;
    });
    boundaries_.push_back(boundary);
    codecs_.emplace_back(model.config().d_model, basis == bases.end() ? nullptr : *basis);
  }
  codings_.resize(boundaries_.size());
  traffic_.resize(boundaries_.size());
  model_.SetBoundaryHook([this](const Step& step, uint32_t layers, MatrixRef hidden) {
    const auto found = std::find(boundaries_.begin(), boundaries_.end(), layers);
    CHECK(found != boundaries_.end());
    return Hand(step, static_cast<size_t>(found - boundaries_.begin()), hidden);
  });
}

CodedModel::~CodedModel() { model_.SetBoundaryHook({}); }

absl::Status CodedModel::Use(std::vector<std::optional<BoundaryCoding>> codings) {
  CHECK(codings.size() == boundaries_.size());
  for (size_t i = 0; i < codings.size(); ++i) {
    if (!codings[i] || codings[i]->block_bits != 0 || !codings[i]->setting.needs_basis()) continue;
    if (basis(i) != nullptr) continue;
    return absl::FailedPreconditionError(absl::StrCat("the boundary after layer ", boundaries_[i],
                                                      " has no basis for ", codings[i]->Label()));
  }
  codings_ = std::move(codings);
  traffic_.assign(boundaries_.size(), {});
  return absl::OkStatus();
}

absl::Status CodedModel::Hand(const Step& step, size_t boundary, MatrixRef hidden) {
  if (paused_ || !codings_[boundary]) return absl::OkStatus();
  const BoundaryCoding& coding = *codings_[boundary];
  BoundaryTraffic& traffic = traffic_[boundary];
  traffic.energy += Energy(hidden);
  std::string payload;
  if (coding.block_bits != 0) {
    payload.resize(RoundToIntegerBlocks(coding.block_bits, hidden));
  } else {
    const EncodingReport report =
        codecs_[boundary].Encode(coding.setting, hidden, payload, nullptr, ErrorMeasure::kExact);
    traffic.squared_error += report.squared_error;
    traffic.plain_rows += report.plain_rows;
    RETURN_IF_ERROR(codecs_[boundary].Decode(
        coding.setting, {reinterpret_cast<const uint8_t*>(payload.data()), payload.size()},
        hidden));
  }
  traffic.payload_bytes += payload.size();
  const std::vector<StageTiming> timings = TimingsOf(boundary + 1, payload.size());
  traffic.frame_bytes +=
      StepToWire(ServedStep(step, traffic.frames), std::move(payload), coding.setting, timings)
          .Length();
  traffic.rows += hidden.rows;
  ++traffic.frames;
  return absl::OkStatus();
}

absl::Status CodedLogits::Begin(absl::Span<const int32_t> window) {
  coded_.Pause(false);
  const absl::Status status = source_.Begin(window);
  coded_.Pause(true);
  return status;
}

absl::Status CodedLogits::Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) {
  coded_.Pause(false);
  const absl::Status status = source_.Read(first, tokens, logits);
  coded_.Pause(true);
  return status;
}

uint64_t RoundToIntegerBlocks(uint32_t bits, MatrixRef rows) {
  const float limit = static_cast<float>((1u << (bits - 1)) - 1);
  uint64_t bytes = 0;
  for (size_t r = 0; r < rows.rows; ++r) {
    for (size_t first = 0; first < rows.cols; first += kBlock) {
      const size_t n = std::min(kBlock, rows.cols - first);
      const absl::Span<float> block(rows.row(r) + first, n);
      float most = 0;
      for (const float value : block) most = std::max(most, std::abs(value));
      const float scale = F16ToF32(F32ToF16(most / limit));
      for (float& value : block) {
        value = scale == 0 ? 0 : std::clamp(std::nearbyint(value / scale), -limit, limit) * scale;
      }
      bytes += sizeof(uint16_t) + (n * bits + 7) / 8;
    }
  }
  return bytes;
}

}  // namespace efedllm
