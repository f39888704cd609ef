#include "net/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace efedllm {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A client that sends bytes as they are, and reads.
class RawClient {
 public:
  explicit RawClient(int port, int receive_buffer = 0) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    const timeval timeout{.tv_sec = 20, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawClient() { Close(); }

  bool connected() const { return connected_; }
  // False: the server has closed.
  bool Send(const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return true;
  }
  // Until the text is in what came since the last call, or the server closes.
  std::string ReadUntil(const std::string& text) {
    std::string got;
    char byte;
    while (!absl::StrContains(got, text) && recv(fd_, &byte, 1, 0) == 1) got += byte;
    return got;
  }
  std::string Read(size_t bytes) {
    std::string got(bytes, '\0');
    const ssize_t n = recv(fd_, got.data(), bytes, MSG_WAITALL);
    got.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return got;
  }
  std::string ReadToEnd() { return ReadUntil("\n\nnever\n\n"); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
  bool connected_ = false;
};

HttpReply JsonError(int status, absl::string_view message) {
  return {.status = status, .body = absl::StrCat("{\"error\": \"", message, "\"}"), .headers = {}};
}

std::string Get(const std::string& path) {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
}
std::string Post(const std::string& path, const std::string& body) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
                      "Content-Type: application/json\r\nContent-Length: ", body.size(), "\r\n\r\n",
                      body);
}

class HttpServerTest : public ::testing::Test {
 protected:
  void Serve(HttpServer::Handler handler) {
    options_.address = "127.0.0.1:0";
    auto server = HttpServer::Start(options_, std::move(handler), JsonError);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  // Serves "METHOD path body" as text.
  void ServeEcho() {
    Serve([](HttpExchange& exchange) {
      const HttpRequest& request = exchange.request();
      exchange.Reply({.content_type = "text/plain",
                      .body = absl::StrCat(request.method, " ", request.path, " ", request.body),
                      .headers = {}});
    });
  }
  std::string Ask(const std::string& request) {
    RawClient client(server_->port());
    client.Send(request);
    return client.ReadToEnd();
  }

  HttpServerOptions options_;
  std::unique_ptr<HttpServer> server_;
};

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

TEST_F(HttpServerTest, ClientThatDoesNotReadIsGivenUp) {
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

TEST_F(HttpServerTest, AClientThatReadsNothingIsSentLittle) {
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

TEST_F(HttpServerTest, AClientThatReadsSlowlyGetsAll) {
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

TEST_F(HttpServerTest, RequestThatTricklesInIsTimedOut) {
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

TEST_F(HttpServerTest, IdleConnectionIsClosed) {
  options_.idle_timeout = absl::Milliseconds(100);
  ServeEcho();
  RawClient client(server_->port());
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST_F(HttpServerTest, BodiesOverTheLimitAre413) {
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

TEST_F(HttpServerTest, LargeBodiesAtOnceAreBoundedTogether) {
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

TEST_F(HttpServerTest, CompressedBodiesAreRefused) {
  ServeEcho();
  EXPECT_THAT(Ask("POST / HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
              StartsWith("HTTP/1.1 415 "));
}

TEST_F(HttpServerTest, EndlessHeadersAreRefused) {
  ServeEcho();
  std::string headers = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&headers, "Header-", i, ": value\r\n");
  EXPECT_THAT(Ask(headers + "\r\n"), StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\nA: " + std::string(1 << 20, 'x')),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(Ask(Get("/" + std::string(100000, 'x'))), StartsWith("HTTP/1.1 414 "));
  EXPECT_THAT(Ask(Get("/" + std::string(5000, 'x'))), StartsWith("HTTP/1.1 414 "));
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

TEST_F(HttpServerTest, ConnectionsOverTheMaximumAreToldSo) {
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

TEST_F(HttpServerTest, WhoIsOverTheMaximumAndSilentIsSoonGone) {
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

TEST_F(HttpServerTest, IdleConnectionsMakeRoomForNewOnes) {
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

TEST_F(HttpServerTest, RequestsOfTwoLengthsAreRefused) {
  ServeEcho();
  for (const std::string lengths : {"Content-Length: 3\r\nContent-Length: 0\r\n",
                                    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                                    "Content-Length: 3x\r\n", "Content-Length: -3\r\n"}) {
    EXPECT_THAT(Ask("POST / HTTP/1.1\r\n" + lengths + "\r\nabc"),
                AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("one length")));
  }
}

TEST_F(HttpServerTest, ManyClientsAtOnceAreAllAnswered) {
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
