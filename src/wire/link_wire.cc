#include "wire/link_wire.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "wire/field_checks.h"

namespace efedllm {
namespace {

constexpr size_t kMaxMessageBytes = 300;
constexpr uint64_t kMaxRttMicros = 60'000'000;
constexpr int64_t kMaxUnixMicros = int64_t{253'402'300'800} * 1'000'000;  // the year 10000

absl::StatusOr<LinkTarget> TargetFromWire(const v1::LinkTarget& message) {
  if (message.address().empty()) {
    if (message.node() != 0) return WrongField("target.address", "is empty");
  } else {
    RETURN_IF_ERROR(CheckAddress("target.address", message.address()));
    if (message.address().front() == ':') return WrongField("target.address", "has no host");
  }
  return LinkTarget{NodeId{message.node()}, message.address()};
}

}  // namespace

v1::MeasureLinks ToWire(const MeasureLinks& measure) {
  v1::MeasureLinks message;
  for (const LinkTarget& target : measure.targets) {
    v1::LinkTarget& added = *message.add_targets();
    added.set_node(target.node.v);
    added.set_address(target.address);
  }
  return message;
}

v1::LinkReport ToWire(const LinkReport& report) {
  v1::LinkReport message;
  message.set_to_node(report.link.to.v);
  message.set_reachable(report.link.reachable);
  if (report.link.reachable) {
    const int64_t micros = absl::ToInt64Microseconds(report.link.rtt);
    message.set_rtt_micros(
        static_cast<uint64_t>(std::clamp<int64_t>(micros, 1, static_cast<int64_t>(kMaxRttMicros))));
    message.set_bytes_per_second(report.link.bytes_per_second);
  }
  message.set_message(report.message);
  return message;
}

v1::Pong ToWire(const Pong& pong) {
  v1::Pong message;
  message.set_id(pong.id);
  message.set_worker_micros(absl::ToUnixMicros(pong.worker_time));
  return message;
}

absl::StatusOr<MeasureLinks> FromWire(const v1::MeasureLinks& message) {
  RETURN_IF_ERROR(CheckRange("the number of targets", static_cast<uint64_t>(message.targets_size()),
                             0, kMaxLinkTargets));
  MeasureLinks measure;
  for (const v1::LinkTarget& target : message.targets()) {
    ASSIGN_OR_RETURN(LinkTarget checked, TargetFromWire(target));
    measure.targets.push_back(std::move(checked));
  }
  return measure;
}

absl::StatusOr<LinkReport> FromWire(const v1::LinkReport& message) {
  LinkReport report;
  report.link.to = NodeId{message.to_node()};
  report.link.reachable = message.reachable();
  report.message = Printable(message.message(), kMaxMessageBytes);
  if (!report.link.reachable) return report;
  RETURN_IF_ERROR(CheckRange("rtt_micros", message.rtt_micros(), 1, kMaxRttMicros));
  RETURN_IF_ERROR(CheckRate("bytes_per_second", message.bytes_per_second()));
  report.link.rtt = absl::Microseconds(message.rtt_micros());
  report.link.bytes_per_second = message.bytes_per_second();
  return report;
}

absl::StatusOr<Pong> FromWire(const v1::Pong& message) {
  RETURN_IF_ERROR(CheckRange("worker_micros",
                             static_cast<uint64_t>(message.worker_micros()),  // negative: too large
                             0, static_cast<uint64_t>(kMaxUnixMicros)));
  return Pong{message.id(), absl::FromUnixMicros(message.worker_micros())};
}

}  // namespace efedllm
