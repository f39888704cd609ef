#include "net/http_server.h"

#include <gmock/gmock.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "net/http_world.h"

namespace efedllm {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST_F(HttpServerTest, AnswersWithBodyStatusAndHeaders) {
  Serve([](HttpExchange& exchange) {
    exchange.Reply({.status = 429, .body = "{}", .headers = {{"Retry-After", "1"}}});
  });
  const std::string reply = Ask(Post("/v1/completions", "{}"));
  EXPECT_THAT(reply, AllOf(StartsWith("HTTP/1.1 429 "), HasSubstr("Retry-After: 1\r\n"),
                           HasSubstr("Content-Type: application/json"), EndsWith("\r\n\r\n{}")));
}

TEST_F(HttpServerTest, HandsOverTheWholeRequest) {
  Serve([](HttpExchange& exchange) {
    const HttpRequest& request = exchange.request();
    EXPECT_EQ(request.method, "GET");
    EXPECT_EQ(request.path, "/a b");
    EXPECT_EQ(request.Query("q"), "1 2");
    EXPECT_EQ(request.Query("Q"), std::nullopt);
    EXPECT_EQ(request.Header("authorization"), "Bearer k");
    EXPECT_EQ(request.Header("none"), std::nullopt);
    EXPECT_THAT(request.peer, StartsWith("127.0.0.1:"));
    exchange.Reply({.body = "ok", .headers = {}});
  });
  EXPECT_THAT(Ask("GET /a%20b?q=1+2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
                  "Connection: close\r\n\r\n"),
              EndsWith("ok"));
}

TEST_F(HttpServerTest, EveryMethodReachesTheHandler) {
  ServeEcho();
  for (const std::string method : {"PUT", "PATCH", "DELETE", "OPTIONS", "POST"}) {
    EXPECT_THAT(Ask(method + " /p HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
                EndsWith(method + " /p "));
  }
}

TEST_F(HttpServerTest, KeepsAConnectionForMoreRequests) {
  ServeEcho();
  RawClient client(server_->port());
  for (int i = 0; i < 20; ++i) {
    client.Send("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    EXPECT_THAT(client.ReadUntil("POST /p abc"), EndsWith("POST /p abc")) << i;
  }
}

TEST_F(HttpServerTest, ReadsChunkedBodies) {
  ServeEcho();
  EXPECT_THAT(Ask("POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                  "Connection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
              EndsWith("POST /p abcde"));
}

TEST_F(HttpServerTest, StreamsEventsAsTheyAreWritten) {
  absl::Notification first_seen;
  Serve([&](HttpExchange& exchange) {
    exchange.Stream({.content_type = "text/event-stream", .body = "", .headers = {}},
                    [&](HttpStream& stream) {
                      EXPECT_TRUE(stream.WriteEvent("one"));
                      first_seen.WaitForNotification();
                      EXPECT_TRUE(stream.WriteEvent("two\nlines"));
                    });
  });
  RawClient client(server_->port());
  client.Send(Post("/", "{}"));
  EXPECT_THAT(client.ReadUntil("data: one\n\n"),
              AllOf(HasSubstr("200 OK"), HasSubstr("text/event-stream"), HasSubstr("chunked")));
  first_seen.Notify();
  EXPECT_THAT(client.ReadToEnd(),
              AllOf(HasSubstr("data: two\ndata: lines\n\n"), EndsWith("0\r\n\r\n")));
}

TEST_F(HttpServerTest, HangUpIsSeenWhileARequestComputes) {
  absl::Notification started, gone;
  Serve([&](HttpExchange& exchange) {
    EXPECT_FALSE(exchange.ClientGone());
    started.Notify();
    while (!exchange.ClientGone()) absl::SleepFor(absl::Milliseconds(1));
    gone.Notify();
    exchange.Reply({.headers = {}});
  });
  RawClient client(server_->port());
  client.Send(Post("/", "{}"));
  started.WaitForNotification();
  client.Close();
  EXPECT_TRUE(gone.WaitForNotificationWithTimeout(absl::Seconds(20)));
}

TEST_F(HttpServerTest, HangUpEndsAStream) {
  absl::Notification gone;
  Serve([&](HttpExchange& exchange) {
    exchange.Stream({.headers = {}}, [&](HttpStream& stream) {
      stream.WriteEvent("first");
      while (!stream.ClientGone()) absl::SleepFor(absl::Milliseconds(1));
      EXPECT_FALSE(stream.WriteEvent("x"));
      EXPECT_FALSE(stream.Write(""));
      gone.Notify();
    });
  });
  RawClient client(server_->port());
  client.Send(Post("/", "{}"));
  client.ReadUntil("first");
  client.Close();
  EXPECT_TRUE(gone.WaitForNotificationWithTimeout(absl::Seconds(20)));
}

TEST_F(HttpServerTest, CompressedBodiesAreRefused) {
  ServeEcho();
  EXPECT_THAT(Ask("POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
              StartsWith("HTTP/1.1 415 "));
}

TEST_F(HttpServerTest, MalformedRequestsDoNotHurtTheNextOne) {
  ServeEcho();
  std::string ranges = "GET / HTTP/1.1\r\nConnection: close\r\nRange: bytes=";
  for (int i = 0; i < 900; ++i) ranges += "1-2,";
  const std::vector<std::string> requests = {
      "\r\n\r\n",
      "GET\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "BREW / HTTP/1.1\r\n\r\n",
      std::string("GET /\0 HTTP/1.1\r\n\r\n", 19),
      "GET /%00%zz%f HTTP/1.1\r\nConnection: close\r\n\r\n",
      "GET / HTTP/1.1\r\nno colon\r\nConnection: close\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: x\r\nConnection: close\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
      "POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=\r\nConnection: "
      "close\r\nContent-Length: 5\r\n\r\nabcde",
      "POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\nConnection: "
      "close\r\nContent-Length: 9\r\n\r\n--b\r\nabcd",
      "POST / HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: "
      "close\r\nContent-Length: 4\r\n\r\n%&=%",
      "GET / HTTP/1.1\r\nConnection: close\r\nRange: bytes=5-1,-,x\r\n\r\n",
      ranges + "1-2\r\n\r\n",
      std::string(1000, '\xff'),
  };
  for (const std::string& request : requests) {
    RawClient client(server_->port());
    client.Send(request);
    client.Close();
    EXPECT_THAT(Ask(Get("/fine")), EndsWith("GET /fine ")) << request.substr(0, 80);
  }
  EXPECT_THAT(Ask("GET / HTTP/9.9\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("{\"error\": ")));
}

TEST_F(HttpServerTest, ExceptionInAHandlerIsA500) {
  Serve([](HttpExchange& exchange) {
    if (exchange.request().path == "/silent") return;
    throw std::runtime_error("a secret");
  });
  EXPECT_THAT(Ask(Get("/")), AllOf(StartsWith("HTTP/1.1 500 "), HasSubstr("{\"error\": "),
                                   Not(HasSubstr("secret"))));
  EXPECT_THAT(Ask(Get("/silent")), StartsWith("HTTP/1.1 500 "));
}

TEST_F(HttpServerTest, ExceptionInAStreamCutsItShort) {
  Serve([](HttpExchange& exchange) {
    exchange.Stream({.headers = {}}, [](HttpStream& stream) {
      stream.WriteEvent("one");
      throw std::runtime_error("boom");
    });
  });
  EXPECT_THAT(Ask(Get("/")), AllOf(HasSubstr("data: one"), Not(EndsWith("0\r\n\r\n"))));
}

TEST_F(HttpServerTest, RequestsOfTwoLengthsAreRefused) {
  ServeEcho();
  for (const std::string lengths : {"Content-Length: 3\r\nContent-Length: 0\r\n",
                                    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                                    "Content-Length: 3x\r\n", "Content-Length: -3\r\n"}) {
    EXPECT_THAT(Ask("POST / HTTP/1.1\r\n" + lengths + "\r\nabc"),
                AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("one length")));
  }
}

TEST_F(HttpServerTest, StopLetsARunningRequestFinish) {
  absl::Notification started;
  Serve([&](HttpExchange& exchange) {
    started.Notify();
    absl::SleepFor(absl::Milliseconds(100));
    exchange.Stream({.headers = {}}, [&](HttpStream& stream) { stream.WriteEvent("done"); });
  });
  const int port = server_->port();
  RawClient idle(port);
  RawClient client(port);
  client.Send("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
  started.WaitForNotification();
  std::thread stopping([&] { server_->Stop(absl::Seconds(20)); });
  EXPECT_THAT(client.ReadToEnd(), AllOf(HasSubstr("data: done"), EndsWith("0\r\n\r\n")));
  client.Close();
  stopping.join();
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_FALSE(RawClient(port).connected());
}

TEST_F(HttpServerTest, StopCutsOffWhatOutlivesTheGrace) {
  absl::Notification started;
  Serve([&](HttpExchange& exchange) {
    started.Notify();
    while (!exchange.ClientGone()) absl::SleepFor(absl::Milliseconds(1));
    EXPECT_TRUE(server_->stopping());
    exchange.Reply({.headers = {}});
  });
  RawClient client(server_->port());
  client.Send(Post("/", "{}"));
  started.WaitForNotification();
  server_->Stop(absl::Milliseconds(50));
}

TEST_F(HttpServerTest, AddressThatIsTakenOrNoneIsAnError) {
  ServeEcho();
  HttpServerOptions options;
  options.address = absl::StrCat("127.0.0.1:", server_->port());
  const auto handler = [](HttpExchange& exchange) { exchange.Reply({.headers = {}}); };
  const auto taken = HttpServer::Start(options, handler, JsonError);
  EXPECT_TRUE(absl::IsUnavailable(taken.status())) << taken.status();
  options.address = "192.0.2.1:8080";
  EXPECT_TRUE(absl::IsUnavailable(HttpServer::Start(options, handler, JsonError).status()));
  options.address = "8080";
  EXPECT_TRUE(absl::IsInvalidArgument(HttpServer::Start(options, handler, JsonError).status()));
}

}  // namespace
}  // namespace efedllm
