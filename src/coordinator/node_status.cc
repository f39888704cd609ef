#include "coordinator/node_status.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace efedllm {
namespace {

// Two heartbeats: a node that answers late is on the way to being out.
constexpr absl::Duration kLateAnswer = absl::Milliseconds(500);

double Per(uint64_t sum, uint64_t count) {
  return count == 0 ? 0 : static_cast<double>(sum) / static_cast<double>(count);
}

std::string Seconds(absl::Duration duration) {
  return absl::FormatDuration(absl::Ceil(duration, absl::Seconds(1)));
}

std::string DrainedSince(absl::Time since) {
  return absl::StrCat("drained by the operator since ", FormatWallClock(since));
}

// What it is, and why it computes nothing or soon will not.
void FillState(const Member& member, std::optional<absl::Time> drained, absl::Time now,
               v1::NodeStatus& node) {
  std::string state(MemberStateName(member.state())), why;
  const bool attached = member.state() != MemberState::kGone;
  if (drained && attached) {
    state = member.stage() != nullptr ? "draining" : "drained";
    why = absl::StrCat(DrainedSince(*drained),
                       member.stage() != nullptr ? "; its layers move to others first" : "");
  } else if (drained) {
    why = DrainedSince(*drained);
  } else if (!member.barred.empty()) {
    if (attached) state = "barred";
    why = absl::StrCat("not trusted with layers: ", member.barred);
  } else if (member.leaving) {
    why = "it was told to stop; its layers move to others first";
  } else if (attached && member.left_out_until > now) {
    state = "left out";
    why = absl::StrCat("for ", Seconds(member.left_out_until - now), ": ", member.last_failure);
  } else if (attached && now - member.last_heard > kLateAnswer) {
    why = "does not answer";
  }
  node.set_state(state);
  node.set_why(why);
}

}  // namespace

void FillNodeStatus(const Member& member, std::optional<absl::Time> drained, absl::Time now,
                    v1::NodeStatus& node) {
  node.set_node(member.node.v);
  node.set_name(member.hello.name);
  node.set_address(member.hello.hop_address);
  node.set_owner(member.hello.owner);
  FillState(member, drained, now, node);
  if (const MemberStage* stage = member.stage()) {
    node.set_first_layer(stage->layers.first);
    node.set_last_layer(stage->layers.last);
    node.set_bytes_held(stage->report.bytes_held);
    node.set_bytes_total(stage->report.bytes_total);
  }
  node.set_threads(member.hello.profile.threads);
  node.set_memory_bytes(member.hello.profile.memory_bytes);
  node.set_read_bytes_per_second(member.hello.profile.read_bytes_per_second);
  node.set_int8_ops_per_second(member.hello.profile.int8_ops_per_second);
  node.set_f32_flops_per_second(member.hello.profile.f32_flops_per_second);
  node.set_bytes_fetched(member.bytes_fetched);
  node.set_steps(member.steps);
  node.set_tokens(member.tokens);
  node.set_compute_millis_per_step(Per(member.counters.compute_micros, member.counters.steps) /
                                   1000);
  node.set_bytes_out_per_step(Per(member.counters.bytes_out, member.counters.steps));
  node.set_kv_tokens_used(member.counters.kv_tokens_used);
  node.set_heartbeat_age_seconds(absl::ToDoubleSeconds(now - member.last_heard));
  node.set_work_gflop(member.work_flop / 1e9);
}

void FillAbsentNode(NodeId id, absl::Time drained, v1::NodeStatus& node) {
  node.set_node(id.v);
  node.set_state(std::string(MemberStateName(MemberState::kGone)));
  node.set_why(DrainedSince(drained));
}

}  // namespace efedllm
