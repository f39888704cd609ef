#include "wire/link_wire.h"

#include <gmock/gmock.h>

#include <cmath>
#include <functional>

namespace efedllm {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const absl::Status& status, const char* field) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
  EXPECT_THAT(std::string(status.message()), HasSubstr(field));
}

TEST(LinkWire, KeepsTargets) {
  const MeasureLinks in{{{NodeId{0}, ""}, {NodeId{7}, "10.0.0.7:7071"}, {NodeId{9}, "[::1]:7"}}};
  const absl::StatusOr<MeasureLinks> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->targets, in.targets);
}

TEST(LinkWire, RefusesTargetsThatCantBeDialed) {
  const auto refused = [](uint64_t node, const std::string& address) {
    v1::MeasureLinks message;
    v1::LinkTarget& target = *message.add_targets();
    target.set_node(node);
    target.set_address(address);
    ExpectRefused(FromWire(message).status(), "target.address");
  };
  refused(7, "");
  refused(7, ":7071");
  refused(7, "host");
  refused(7, "host:0");
  refused(7, "unix:///x:80");
  refused(7, std::string(400, 'h') + ":80");
  v1::MeasureLinks many;
  for (size_t i = 0; i <= kMaxLinkTargets; ++i) many.add_targets();
  ExpectRefused(FromWire(many).status(), "number of targets");
}

TEST(LinkWire, KeepsAReport) {
  const LinkReport in{{.to = NodeId{7}, .rtt = absl::Microseconds(1234), .bytes_per_second = 6e6},
                      ""};
  const absl::StatusOr<LinkReport> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->link, in.link);
}

TEST(LinkWire, KeepsThatANodeIsNotReachableAndWhy) {
  const LinkReport in{{.to = NodeId{7}, .reachable = false}, "no route\n to host"};
  const absl::StatusOr<LinkReport> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->link, in.link);
  EXPECT_THAT(out->message, HasSubstr("no route"));
  EXPECT_EQ(out->message.find('\n'), std::string::npos);
}

TEST(LinkWire, ARoundTripTimeIsNeverNothing) {
  LinkReport report{{.to = NodeId{7}, .rtt = absl::Nanoseconds(3)}, ""};
  EXPECT_EQ(FromWire(ToWire(report))->link.rtt, absl::Microseconds(1));
  report.link.rtt = absl::InfiniteDuration();
  EXPECT_EQ(FromWire(ToWire(report))->link.rtt, absl::Minutes(1));
}

TEST(LinkWire, RefusesAReportThatCantBe) {
  const auto refused = [](const char* field, const std::function<void(v1::LinkReport&)>& change) {
    v1::LinkReport message =
        ToWire(LinkReport{{.to = NodeId{7}, .rtt = absl::Seconds(1), .bytes_per_second = 1}, ""});
    change(message);
    ExpectRefused(FromWire(message).status(), field);
  };
  refused("rtt_micros", [](v1::LinkReport& m) { m.set_rtt_micros(0); });
  refused("rtt_micros", [](v1::LinkReport& m) { m.set_rtt_micros(UINT64_MAX); });
  refused("bytes_per_second", [](v1::LinkReport& m) { m.set_bytes_per_second(-1); });
  refused("bytes_per_second", [](v1::LinkReport& m) { m.set_bytes_per_second(NAN); });
  refused("bytes_per_second", [](v1::LinkReport& m) { m.set_bytes_per_second(INFINITY); });
}

TEST(LinkWire, KeepsAPong) {
  const Pong in{42, absl::FromUnixMicros(1'700'000'000'123'456)};
  const absl::StatusOr<Pong> out = FromWire(ToWire(in));
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ(out->id, in.id);
  EXPECT_EQ(out->worker_time, in.worker_time);
}

TEST(LinkWire, RefusesAClockThatCantBe) {
  for (const int64_t micros : {int64_t{-1}, INT64_MIN, INT64_MAX}) {
    v1::Pong message;
    message.set_worker_micros(micros);
    ExpectRefused(FromWire(message).status(), "worker_micros");
  }
}

}  // namespace
}  // namespace efedllm
