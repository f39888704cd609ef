// HTTP/1.1 for the coordinator's API: one handler for all requests, plain or streamed replies, and
// a prompt answer to "is the client still there?". cpp-httplib does the protocol behind it.
#ifndef EFEDLLM_NET_HTTP_SERVER_H_
#define EFEDLLM_NET_HTTP_SERVER_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace efedllm {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // upper case as sent: GET, POST, …
  std::string path;    // percent-decoded, without the query; any bytes
  std::string body;    // at most HttpServerOptions::max_body_bytes; any bytes
  std::string peer;    // HOST:PORT of the client, for logs
  HttpHeaders headers;
  HttpHeaders query;  // decoded name and value pairs

  // The first header of that name, in any case; nullopt: none.
  std::optional<absl::string_view> Header(absl::string_view name) const;
  // The first query parameter of that name; nullopt: none.
  std::optional<absl::string_view> Query(absl::string_view name) const;
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpHeaders headers;  // beyond Content-Type and Content-Length
};

// The body of a streamed reply, while it is being written. One thread at a time.
class HttpStream {
 public:
  virtual ~HttpStream() = default;

  // Sends bytes at once. False: the client is gone, or took nothing for write_timeout; then stop,
  // every later call is false too.
  virtual bool Write(absl::string_view bytes) = 0;
  // True soon after the client closed its connection, without anything being written. Thread-safe.
  virtual bool ClientGone() const = 0;

  // One server-sent event: each line of data becomes a "data: " line.
  bool WriteEvent(absl::string_view data);
};

// One request being answered, on its connection's own thread.
class HttpExchange {
 public:
  using StreamBody = std::function<void(HttpStream&)>;

  virtual ~HttpExchange() = default;

  virtual const HttpRequest& request() const = 0;
  // As HttpStream::ClientGone: ask while a request waits or computes, so that its work can stop.
  virtual bool ClientGone() const = 0;

  // Exactly one of both per exchange; nothing is sent before the handler returns.
  virtual void Reply(HttpReply reply) = 0;
  // A chunked reply: after the handler returned, body writes it, on the same thread, once; then it
  // is destroyed. If the client is gone by then, body is destroyed without a call. head.body is
  // ignored. For server-sent events head.content_type is "text/event-stream".
  virtual void Stream(HttpReply head, StreamBody body) = 0;
};

struct HttpServerOptions {
  std::string address = "127.0.0.1:8080";  // HOST:PORT or [V6]:PORT; port 0: any free one
  size_t max_connections = 256;            // each has a thread while it is open; more get 503, but
                                           // for a few that only GET: who looks after a server
                                           // needs it most when it is full
  size_t max_body_bytes = 16u << 20;       // larger: 413
  size_t max_large_bytes = 64u << 20;      // of all requests, each from its 257th KiB on; more: 503
  absl::Duration read_timeout = absl::Seconds(30);  // for a whole request, from its first byte
  absl::Duration write_timeout = absl::Seconds(3);  // in which a client must take something
  absl::Duration idle_timeout = absl::Seconds(60);  // of a kept-alive connection
  absl::Duration least_idle = absl::Seconds(1);  // where all places are taken, the connection that
                                                 // idles longest, and this long, makes room
};

// Threads: handlers run concurrently, one thread per open connection.
class HttpServer {
 public:
  // Answers a request; an exception out of it becomes a 500.
  using Handler = std::function<void(HttpExchange&)>;
  // Makes the reply where no handler ran: malformed (400), too large (413, 414, 431), crashed
  // (500), full or stopping (503). Its status must stay `status`.
  using ErrorReply = std::function<HttpReply(int status, absl::string_view message)>;

  // Listens when it returns. Unavailable: the address is taken or not ours (says which);
  // InvalidArgument: not an address.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           Handler handler, ErrorReply error);
  ~HttpServer();  // Stop(absl::ZeroDuration())

  int port() const;
  // True from Stop on: long-running handlers may look.
  bool stopping() const;

  // Stops accepting, closes idle connections, lets running requests finish for up to `grace`, then
  // closes their sockets (ClientGone turns true) and waits until their handlers return.
  void Stop(absl::Duration grace);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace efedllm

#endif  // EFEDLLM_NET_HTTP_SERVER_H_
