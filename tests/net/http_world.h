// What the tests of the HTTP server share: clients that send bytes as they are, and a server.
#ifndef EFEDLLM_TESTS_NET_HTTP_WORLD_H_
#define EFEDLLM_TESTS_NET_HTTP_WORLD_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "net/http_server.h"

namespace efedllm {

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

inline HttpReply JsonError(int status, absl::string_view message) {
  return {.status = status, .body = absl::StrCat("{\"error\": \"", message, "\"}"), .headers = {}};
}

inline std::string Get(const std::string& path) {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
}
inline std::string Post(const std::string& path, const std::string& body) {
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

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_NET_HTTP_WORLD_H_
