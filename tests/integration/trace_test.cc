// What an operator sees of a request that went through real workers: its trace, and the metrics.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "coordinator/admin_service.h"
#include "integration/cluster_world.h"

namespace efedllm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr int kTokens = 20;

class Trace : public testing::Test {
 protected:
  void SetUp() override {
    world_.Join();
    world_.Join();
    ASSERT_TRUE(world_.AwaitServing(2));
  }

  json Complete() {
    httplib::Client client("127.0.0.1", world_.coordinator().http_port());
    client.set_read_timeout(60);
    const json request = {{"prompt", "Once upon a time"},
                          {"max_tokens", kTokens},
                          {"temperature", 0},
                          {"ignore_eos", true},
                          {"speculation", false}};
    const auto reply = client.Post("/v1/completions", request.dump(), "application/json");
    EXPECT_TRUE(reply && reply->status == 200);
    return reply ? json::parse(reply->body) : json();
  }

  grpc::Status GetTrace(const std::string& request, v1::TraceReply& reply) {
    const auto stub = v1::Admin::NewStub(grpc::CreateChannel(
        "unix:" + AdminSocket(world_.dir() + "/coordinator"), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::TraceRequest message;
    message.set_request(request);
    return stub->GetTrace(&context, message, &reply);
  }

  ClusterWorld world_{kSeedlingPath, 2};
};

TEST_F(Trace, ShowsEveryPartOfEveryHopAndToken) {
  const std::string id = Complete()["id"];
  v1::TraceReply reply;
  ASSERT_TRUE(GetTrace(id, reply).ok());
  const json trace = json::parse(reply.chrome_json());
  EXPECT_EQ(trace["otherData"]["request"], id);
  std::map<std::string, int> events;
  int64_t begin = INT64_MAX, end = 0;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    ++events[event["name"]];
    EXPECT_GE(event["dur"], 0);
    begin = std::min<int64_t>(begin, event["ts"]);
    end = std::max<int64_t>(end, int64_t{event["ts"]} + int64_t{event["dur"]});
  }
  const int steps = events["step"];
  EXPECT_GE(steps, kTokens);
  for (const char* part : {"decode", "compute", "encode"}) EXPECT_EQ(events[part], 2 * steps);
  EXPECT_EQ(events["wire"], 3 * steps);
  EXPECT_EQ(events["queue"], 3 * steps);
  EXPECT_EQ(events["head"], steps);
  EXPECT_EQ(begin, 0);
  EXPECT_LT(end, absl::ToInt64Microseconds(absl::Minutes(1)));
  // The same without its name: it is the latest.
  v1::TraceReply latest;
  ASSERT_TRUE(GetTrace("", latest).ok());
  EXPECT_EQ(json::parse(latest.chrome_json())["otherData"]["request"], id);
}

TEST_F(Trace, OfAnUnknownRequestIsNotFound) {
  v1::TraceReply reply;
  const grpc::Status none = GetTrace("", reply);
  EXPECT_EQ(none.error_code(), grpc::StatusCode::NOT_FOUND);
  Complete();
  const grpc::Status unknown = GetTrace("cmpl-unknown", reply);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(unknown.error_message(), HasSubstr("cmpl-unknown"));
}

TEST_F(Trace, MetricsShowStagesHopsAndNodes) {
  Complete();
  ASSERT_TRUE(world_.AwaitStatus([](const ClusterStatus& status) {
    return std::none_of(status.members.begin(), status.members.end(),
                        [](const Member& member) { return member.pings.empty(); });
  }));
  httplib::Client client("127.0.0.1", world_.coordinator().http_port());
  const auto reply = client.Get("/metrics");
  ASSERT_TRUE(reply && reply->status == 200);
  for (const Member& member : world_.coordinator().cluster_status().members) {
    const std::string node = absl::StrCat("{node=\"", NodeName(member.node), "\"");
    for (const char* metric : {"efedllm_stage_busy_ratio", "efedllm_node_steps_total",
                               "efedllm_node_kv_used_tokens", "efedllm_node_rtt_seconds"}) {
      EXPECT_THAT(reply->body, HasSubstr(metric + node));
    }
    EXPECT_THAT(reply->body, HasSubstr(absl::StrCat("efedllm_hop_wire_seconds_count{from=\"",
                                                    NodeName(member.node), "\"")));
  }
  EXPECT_THAT(reply->body, HasSubstr("efedllm_hop_wire_seconds_count{from=\"coordinator\""));
}

}  // namespace
}  // namespace efedllm
