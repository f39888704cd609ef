// The HTTP server under clients that are too many, too slow, or want too much.
#include <gmock/gmock.h>

#include <atomic>
#include <memory>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "net/http_world.h"

namespace efedllm {
namespace {

using HttpLimitsTest = HttpServerTest;

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(HttpLimitsTest, ClientThatDoesNotReadIsGivenUp) {
  options_.write_timeout = absl::Milliseconds(200);
  absl::Notification ended;
  Serve([&](HttpExchange& exchange) {
    exchange.Stream({.headers = {}}, [&](HttpStream& stream) {
      const std::string event(16 << 10, 'x');
      while (stream.WriteEvent(event)) {
      }
      EXPECT_TRUE(stream.ClientGone());
      ended.Notify();
    });
  });
  RawClient client(server_->port(), /*receive_buffer=*/4096);
  client.Send(Post("/", "{}"));
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(20)));
}

TEST_F(HttpLimitsTest, AClientThatReadsNothingIsSentLittle) {
  options_.write_timeout = absl::Milliseconds(200);
  absl::Notification ended;
  size_t taken = 0;
  Serve([&](HttpExchange& exchange) {
    exchange.Stream({.headers = {}}, [&](HttpStream& stream) {
      while (stream.WriteEvent(std::string(200, 'x'))) taken += 200;
      ended.Notify();
    });
  });
  RawClient client(server_->port(), /*receive_buffer=*/4096);
  client.Send(Post("/", "{}"));
  ASSERT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_LT(taken, 512u << 10);
}

TEST_F(HttpLimitsTest, AClientThatReadsSlowlyGetsAll) {
  options_.write_timeout = absl::Milliseconds(500);
  const std::string body(600 << 10, 'x');
  Serve([&](HttpExchange& exchange) {
    exchange.Reply({.content_type = "text/plain", .body = body, .headers = {}});
  });
  RawClient client(server_->port(), /*receive_buffer=*/4096);
  client.Send(Post("/", "{}"));
  std::string got;
  for (int i = 0; i < 15; ++i) {  // a second in all: longer than one timeout
    got += client.Read(32 << 10);
    absl::SleepFor(absl::Milliseconds(70));
  }
  got += client.ReadToEnd();
  EXPECT_TRUE(absl::EndsWith(got, body)) << got.size();
}

TEST_F(HttpLimitsTest, RequestThatTricklesInIsTimedOut) {
  options_.read_timeout = absl::Milliseconds(300);
  ServeEcho();
  RawClient client(server_->port());
  std::thread trickle([&] {
    for (int i = 0; i < 1000 && client.Send(i == 0 ? "POST / HTTP/1.1\r\nA: " : "x"); ++i) {
      absl::SleepFor(absl::Milliseconds(20));
    }
  });
  EXPECT_THAT(client.ReadToEnd(), StartsWith("HTTP/1.1 408 "));
  client.Close();
  trickle.join();
}

TEST_F(HttpLimitsTest, IdleConnectionIsClosed) {
  options_.idle_timeout = absl::Milliseconds(100);
  ServeEcho();
  RawClient client(server_->port());
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST_F(HttpLimitsTest, BodiesOverTheLimitAre413) {
  options_.max_body_bytes = 1000;
  ServeEcho();
  EXPECT_THAT(Ask(Post("/", std::string(1000, 'x'))), StartsWith("HTTP/1.1 200 "));
  const std::string refused = Ask(Post("/", std::string(1001, 'x')));
  EXPECT_THAT(refused, AllOf(StartsWith("HTTP/1.1 413 "), HasSubstr("{\"error\": ")));
  EXPECT_THAT(Ask(Post("/", std::string(3 << 20, 'x'))), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(Ask("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"),
              StartsWith("HTTP/1.1 413 "));
  const std::string chunk = absl::StrCat("400\r\n", std::string(1024, 'x'), "\r\n");
  const std::string head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_THAT(Ask(head + chunk + "0\r\n\r\n"), StartsWith("HTTP/1.1 413 "));
  std::string endless = head;
  for (int i = 0; i < 1000; ++i) endless += chunk;
  EXPECT_THAT(Ask(endless), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpLimitsTest, LargeBodiesAtOnceAreBoundedTogether) {
  options_.max_large_bytes = 600 << 10;
  absl::Notification started, go_on;
  Serve([&](HttpExchange& exchange) {
    if (exchange.request().path == "/wait") {
      started.Notify();
      go_on.WaitForNotification();
    }
    exchange.Reply({.body = "served", .headers = {}});
  });
  const std::string large(700 << 10, 'x');
  RawClient first(server_->port());
  first.Send(Post("/wait", large));
  started.WaitForNotification();
  EXPECT_THAT(Ask(Post("/p", large)), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("try again")));
  EXPECT_THAT(Ask(Post("/p", "small")), EndsWith("served"));
  go_on.Notify();
  EXPECT_THAT(first.ReadToEnd(), EndsWith("served"));
  EXPECT_THAT(Ask(Post("/p", large)), EndsWith("served"));
}

TEST_F(HttpLimitsTest, EndlessHeadersAreRefused) {
  ServeEcho();
  std::string headers = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&headers, "Header-", i, ": value\r\n");
  EXPECT_THAT(Ask(headers + "\r\n"), StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\nA: " + std::string(1 << 20, 'x')),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(Ask(Get("/" + std::string(100000, 'x'))), StartsWith("HTTP/1.1 414 "));
  EXPECT_THAT(Ask(Get("/" + std::string(5000, 'x'))), StartsWith("HTTP/1.1 414 "));
}

TEST_F(HttpLimitsTest, ConnectionsOverTheMaximumAreToldSo) {
  options_.max_connections = 2;
  options_.least_idle = absl::InfiniteDuration();
  ServeEcho();
  const std::string request = "GET /p HTTP/1.1\r\nHost: x\r\n\r\n";
  RawClient first(server_->port()), second(server_->port());
  for (RawClient* client : {&first, &second}) {
    client->Send(request);
    EXPECT_THAT(client->ReadUntil("GET /p "), HasSubstr("200 OK"));
  }
  EXPECT_THAT(Ask(Post("/p", "{}")), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("{\"error\": ")));
  EXPECT_THAT(Ask(request), AllOf(HasSubstr("200 OK"), EndsWith("GET /p ")));
  std::vector<std::unique_ptr<RawClient>> crowd;  // far beyond: no thread, no hang
  for (int i = 0; i < 100; ++i) crowd.push_back(std::make_unique<RawClient>(server_->port()));
  EXPECT_THAT(crowd.back()->ReadToEnd(),
              AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("Connection: close\r\n"),
                    HasSubstr("{\"error\": ")));
  first.Send(request);
  EXPECT_THAT(first.ReadUntil("GET /p "), HasSubstr("200 OK"));
}

TEST_F(HttpLimitsTest, WhoIsOverTheMaximumAndSilentIsSoonGone) {
  options_.max_connections = 1;
  options_.least_idle = absl::InfiniteDuration();
  options_.idle_timeout = absl::Seconds(600);
  options_.read_timeout = absl::Seconds(600);
  ServeEcho();
  RawClient first(server_->port());
  first.Send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(first.ReadUntil("GET /p "), HasSubstr("200 OK"));
  RawClient silent(server_->port()), half(server_->port());
  half.Send("POST / HTTP/1.1\r\nA:");
  EXPECT_EQ(silent.ReadToEnd(), "");
  EXPECT_THAT(half.ReadToEnd(), StartsWith("HTTP/1.1 408 "));
}

TEST_F(HttpLimitsTest, IdleConnectionsMakeRoomForNewOnes) {
  options_.max_connections = 2;
  options_.least_idle = absl::ZeroDuration();
  ServeEcho();
  const std::string request = "GET /p HTTP/1.1\r\nHost: x\r\n\r\n";
  std::vector<std::unique_ptr<RawClient>> clients;  // all stay open
  for (int i = 0; i < 5; ++i) {
    clients.push_back(std::make_unique<RawClient>(server_->port()));
    clients.back()->Send(request);
    EXPECT_THAT(clients.back()->ReadUntil("GET /p "), HasSubstr("200 OK"));
  }
}

TEST_F(HttpLimitsTest, ManyClientsAtOnceAreAllAnswered) {
  ServeEcho();
  std::vector<std::thread> clients;
  std::atomic<int> answered = 0;
  for (int i = 0; i < 32; ++i) {
    clients.emplace_back([&, i] {
      const std::string body = std::to_string(i);
      if (absl::EndsWith(Ask(Post("/p", body)), "POST /p " + body)) ++answered;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answered, 32);
}

}  // namespace
}  // namespace efedllm
