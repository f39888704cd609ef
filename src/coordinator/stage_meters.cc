#include "coordinator/stage_meters.h"

#include <algorithm>
#include <string>

#include "cluster/step_timeline.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

constexpr absl::Duration kOffsetsLast = absl::Seconds(1);
std::string Label(NodeId node) { return node == kCoordinatorNode ? "coordinator" : NodeName(node); }

}  // namespace

void BusyMeter::Add(absl::Time begin, absl::Time end) {
  begin = std::max(begin, end - absl::Seconds(kSeconds));
  while (begin < end) {
    const int64_t second = absl::ToUnixSeconds(begin);
    const absl::Time next = std::min(end, absl::FromUnixSeconds(second + 1));
    Bucket& bucket = buckets_[static_cast<size_t>(second) % buckets_.size()];
    if (bucket.second < second) bucket = {second, absl::ZeroDuration()};
    if (bucket.second == second) bucket.busy += next - begin;
    begin = next;
  }
}

double BusyMeter::Share(absl::Time now) const {
  const int64_t last = absl::ToUnixSeconds(now) - 2;
  absl::Duration busy;
  for (const Bucket& bucket : buckets_) {
    if (bucket.second > last - kSeconds && bucket.second <= last) busy += bucket.busy;
  }
  return std::min(absl::FDivDuration(busy, absl::Seconds(kSeconds)), 1.0);
}

StageMeters::StageMeters(prometheus::Registry& registry, ClockOffsets clock_offsets)
    : clock_offsets_(std::move(clock_offsets)),
      hops_(prometheus::BuildHistogram()
                .Name("efedllm_hop_wire_seconds")
                .Help("From a step's leaving one node until the next one has all of it; what the "
                      "nodes' clocks differ by is taken out where it is known")
                .Register(registry)),
      bytes_(prometheus::BuildCounter()
                 .Name("efedllm_hop_activation_bytes_total")
                 .Help("Activations that crossed a hop, as coded, without frames' headers")
                 .Register(registry)),
      rows_(prometheus::BuildCounter()
                .Name("efedllm_hop_activation_rows_total")
                .Help("Rows of these activations: one for each token of a step")
                .Register(registry)) {}

void StageMeters::Observe(const StepResult& result, absl::Time submitted, uint32_t rows) {
  if (result.returned >= offsets_due_) {
    offsets_ = clock_offsets_();
    offsets_due_ = result.returned + kOffsetsLast;
  }
  const StepTimeline line =
      PlaceStep(submitted, result.returned, result.timings, [this](NodeId node) {
        const auto known = offsets_.find(node);
        return known == offsets_.end() ? absl::ZeroDuration() : known->second;
      });
  NodeId from = kCoordinatorNode;
  for (const StagePassage& stage : line.stages) {
    if (stage.node != from) Hop(from, stage.node).Observe(absl::ToDoubleSeconds(stage.wire));
    from = stage.node;
  }
  if (from != kCoordinatorNode)
    Hop(from, kCoordinatorNode).Observe(absl::ToDoubleSeconds(line.wire_back));

  absl::MutexLock lock(&mu_);
  if (epoch_ != result.epoch) {
    meters_.clear();
    traffic_.clear();
  }
  epoch_ = result.epoch;
  from = kCoordinatorNode;
  for (size_t i = 0; i < line.stages.size(); ++i) {
    const StagePassage& stage = line.stages[i];
    Meter& meter = meters_[{result.chain, i}];
    meter.node = stage.node;
    meter.busy.Add(stage.begun(), stage.computed());
    Count(from, stage.node, stage.received_codec, stage.received_bytes, rows);
    from = stage.node;
  }
  Count(from, kCoordinatorNode, result.received_codec, result.received_bytes, rows);
}

void StageMeters::Count(NodeId from, NodeId to, uint32_t codec, uint32_t bytes, uint32_t rows) {
  const std::optional<CodecSetting> setting = CodecFromNumber(codec);
  if (!setting || bytes == 0) return;  // it crossed no hop, or carried nothing
  const auto add = [&](prometheus::Family<prometheus::Counter>& family, uint32_t count) {
    family
        .Add({{"from", Label(from)},
              {"to", Label(to)},
              {"codec", std::string(CodecName(setting->id))}})
        .Increment(count);
  };
  add(bytes_, bytes);
  add(rows_, rows);
  HopTraffic& traffic = traffic_[{from, to}];
  traffic.from = from;
  traffic.to = to;
  traffic.codec = *setting;
  traffic.bytes += bytes;
  traffic.rows += rows;
}

std::vector<HopTraffic> StageMeters::Traffic() const {
  absl::MutexLock lock(&mu_);
  std::vector<HopTraffic> hops;
  hops.reserve(traffic_.size());
  for (const auto& [ends, traffic] : traffic_) hops.push_back(traffic);
  return hops;
}

std::vector<StageBusy> StageMeters::Busy(absl::Time now) const {
  absl::MutexLock lock(&mu_);
  std::vector<StageBusy> stages;
  for (const auto& [place, meter] : meters_) {
    stages.push_back({meter.node, place.first, place.second, meter.busy.Share(now)});
  }
  return stages;
}

prometheus::Histogram& StageMeters::Hop(NodeId from, NodeId to) {
  prometheus::Histogram*& hop = hop_[{from, to}];
  if (hop == nullptr) {
    hop = &hops_.Add(
        {{"from", Label(from)}, {"to", Label(to)}},
        prometheus::Histogram::BucketBoundaries{0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025,
                                                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1});
  }
  return *hop;
}

}  // namespace efedllm
