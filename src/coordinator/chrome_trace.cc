#include "coordinator/chrome_trace.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cluster/step_timeline.h"
#include "net/credentials.h"
#include "svd/codec.h"

namespace efedllm {
namespace {

using nlohmann::json;

// Places events on tracks. A thread of the format holds events that don't overlap, so a track has
// as many as are needed: its lanes.
class TraceWriter {
 public:
  explicit TraceWriter(absl::Time begin) : begin_(begin) {}

  struct Event {
    std::string name;
    absl::Time begin;
    absl::Duration duration;
    json args;
  };

  // events: of one step on one track, in their order.
  void Add(const std::string& process, const std::string& thread,
           const std::vector<Event>& events) {
    const auto [pid, tid] =
        Lane(process, thread, events.front().begin, events.back().begin + events.back().duration);
    for (const Event& event : events) {
      events_.push_back({{"name", event.name},
                         {"cat", process},
                         {"ph", "X"},
                         {"pid", pid},
                         {"tid", tid},
                         {"ts", absl::ToInt64Microseconds(event.begin - begin_)},
                         {"dur", absl::ToInt64Microseconds(event.duration)},
                         {"args", event.args}});
    }
  }

  json Take() { return std::move(events_); }

 private:
  struct Track {
    std::vector<std::pair<int, absl::Time>> lanes;  // thread number, free from then on
  };

  void Name(const char* what, int pid, int tid, const std::string& name) {
    events_.push_back(
        {{"name", what}, {"ph", "M"}, {"pid", pid}, {"tid", tid}, {"args", {{"name", name}}}});
  }

  int ProcessId(const std::string& process) {
    const auto [it, is_new] = processes_.emplace(process, static_cast<int>(processes_.size()) + 1);
    if (is_new) {
      Name("process_name", it->second, 0, process);
      events_.push_back({{"name", "process_sort_index"},
                         {"ph", "M"},
                         {"pid", it->second},
                         {"tid", 0},
                         {"args", {{"sort_index", it->second}}}});
    }
    return it->second;
  }

  std::pair<int, int> Lane(const std::string& process, const std::string& thread, absl::Time begin,
                           absl::Time end) {
    const int pid = ProcessId(process);
    Track& track = tracks_[{pid, thread}];
    const auto free = std::find_if(track.lanes.begin(), track.lanes.end(),
                                   [&](const auto& lane) { return lane.second <= begin; });
    if (free != track.lanes.end()) {
      free->second = end;
      return {pid, free->first};
    }
    const int tid = ++threads_[pid];
    track.lanes.emplace_back(tid, end);
    const size_t lanes = track.lanes.size();
    Name("thread_name", pid, tid, lanes == 1 ? thread : absl::StrCat(thread, " (", lanes, ")"));
    return {pid, tid};
  }

  const absl::Time begin_;
  json events_ = json::array();
  std::map<std::string, int> processes_;
  std::map<int, int> threads_;  // so many in each process
  std::map<std::pair<int, std::string>, Track> tracks_;
};

class Tracer {
 public:
  Tracer(const std::map<NodeId, TracedNode>& nodes, absl::Time begin)
      : nodes_(nodes), writer_(begin) {}

  void Add(const StepTrace& step) {
    const json args = {{"epoch", step.epoch.v},
                       {"step", step.step.v},
                       {"chain", step.chain},
                       {"choice", step.choice},
                       {"position", step.first_position},
                       {"tokens", step.tokens},
                       {"rows", step.rows}};
    const StepTimeline line =
        PlaceStep(step.submitted, step.returned, *step.timings, [this](NodeId node) {
          const auto known = nodes_.find(node);
          return known == nodes_.end() ? absl::ZeroDuration() : known->second.clock_offset;
        });
    const absl::Time head_begun = std::max(step.head_begun, step.returned);
    writer_.Add("coordinator", "scheduler",
                {{"step", step.submitted, step.returned - step.submitted, args},
                 {"queue", step.returned, head_begun - step.returned, args}});
    AddStages(line, step, args);
    writer_.Add("coordinator", "head", {{"head", head_begun, step.head_done - head_begun, args}});
  }

  json Take() { return writer_.Take(); }

 private:
  void AddStages(const StepTimeline& line, const StepTrace& step, const json& args) {
    NodeId from = kCoordinatorNode;
    for (const StagePassage& stage : line.stages) {
      AddHop(from, stage.node, stage.received - stage.wire, stage.wire,
             WithCodec(args, stage.received_codec, stage.received_bytes));
      writer_.Add(Name(stage.node), "stage",
                  {{"decode", stage.received, stage.decode, args},
                   {"queue", stage.decoded(), stage.queue, args},
                   {"compute", stage.begun(), stage.compute, args},
                   {"encode", stage.computed(), stage.encode, args}});
      from = stage.node;
    }
    if (line.stages.empty()) return;
    AddHop(from, kCoordinatorNode, step.returned - line.wire_back, line.wire_back,
           WithCodec(args, step.received_codec, step.received_bytes));
  }

  static json WithCodec(json args, uint32_t codec, uint32_t bytes) {
    const std::optional<CodecSetting> setting = CodecFromNumber(codec);
    if (setting) args["codec"] = CodecLabel(*setting);
    args["bytes"] = bytes;
    return args;
  }

  // Where the coordinator computes itself, there is no hop.
  void AddHop(NodeId from, NodeId to, absl::Time begin, absl::Duration wire, const json& args) {
    if (from == to) return;
    writer_.Add("links", absl::StrCat(Name(from), " to ", Name(to)), {{"wire", begin, wire, args}});
  }

  std::string Name(NodeId node) const {
    if (node == kCoordinatorNode) return "coordinator";
    const auto known = nodes_.find(node);
    const std::string id = NodeName(node);
    return known == nodes_.end() ? id : absl::StrCat(known->second.name, " (", id, ")");
  }

  const std::map<NodeId, TracedNode>& nodes_;
  TraceWriter writer_;
};

}  // namespace

std::string ChromeTrace(const RequestTrace& trace, const std::map<NodeId, TracedNode>& nodes) {
  // The earliest is not always the first: steps come back out of order over several chains.
  absl::Time begin = absl::InfiniteFuture();
  for (const StepTrace& step : trace.steps) begin = std::min(begin, step.submitted);
  Tracer tracer(nodes, begin);
  for (const StepTrace& step : trace.steps) tracer.Add(step);
  const json document = {
      {"displayTimeUnit", "ms"},
      {"otherData",
       {{"request", trace.request},
        {"began", trace.steps.empty() ? "" : absl::FormatTime(begin, absl::UTCTimeZone())},
        {"steps", trace.steps.size()},
        {"steps_left_out", trace.steps_left_out}}},
      {"traceEvents", tracer.Take()}};
  return document.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
}

}  // namespace efedllm
