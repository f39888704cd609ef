#include "net/http_server.h"

#include <httplib.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <set>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "net/address.h"
#include "net/http_connection.h"
#include "net/http_threads.h"

namespace efedllm {
namespace {

// Connections beyond max_connections that have a thread: their GETs are served, all else gets 503.
// More get 503 unheard.
constexpr size_t kPoliteRefusals = 32;
constexpr absl::Duration kRefusalTime = absl::Seconds(2);  // to send a request, for one of those
constexpr absl::string_view kTooManyConnections = "too many connections";
constexpr size_t kMaxPathBytes = 1024;  // httplib matches it with std::regex, which recurses
constexpr int kBacklog = 1024;          // httplib's 5 makes a burst of clients wait for SYN retries

std::optional<absl::string_view> First(const HttpHeaders& pairs, absl::string_view name,
                                       bool any_case) {
  for (const auto& [key, value] : pairs) {
    if (any_case ? absl::EqualsIgnoreCase(key, name) : key == name) return value;
  }
  return std::nullopt;
}

HttpRequest ToRequest(const httplib::Request& from) {
  HttpRequest request;
  request.method = from.method;
  request.path = from.path;
  request.body = from.body;
  request.peer = FormatHostPort({from.remote_addr, static_cast<uint16_t>(from.remote_port)});
  request.headers.assign(from.headers.begin(), from.headers.end());
  request.query.assign(from.params.begin(), from.params.end());
  return request;
}

bool HasOneLength(const httplib::Request& request) {
  const size_t lengths = request.get_header_value_count("Content-Length");
  if (lengths + request.get_header_value_count("Transfer-Encoding") > 1) return false;
  const std::string length = request.get_header_value("Content-Length");
  return lengths == 0 || (!length.empty() && std::all_of(length.begin(), length.end(), [](char c) {
           return absl::ascii_isdigit(static_cast<unsigned char>(c));
         }));
}

void SetHead(const HttpReply& reply, httplib::Response& to) {
  to.status = reply.status;
  for (const auto& [name, value] : reply.headers) to.set_header(name, value);
}

class Stream final : public HttpStream {
 public:
  Stream(const HttpConnection& connection, httplib::DataSink& sink)
      : connection_(connection), sink_(sink) {}

  bool Write(absl::string_view bytes) override {
    if (bytes.empty()) return !connection_.ClientGone();  // an empty chunk would end the reply
    return !connection_.ClientGone() && sink_.write(bytes.data(), bytes.size());
  }
  bool ClientGone() const override { return connection_.ClientGone(); }

 private:
  const HttpConnection& connection_;
  httplib::DataSink& sink_;
};

class Exchange final : public HttpExchange {
 public:
  Exchange(HttpRequest request, const HttpConnection& connection, httplib::Response& response)
      : request_(std::move(request)), connection_(connection), response_(response) {}

  const HttpRequest& request() const override { return request_; }
  bool ClientGone() const override { return connection_.ClientGone(); }
  bool replied() const { return replied_; }

  void Reply(HttpReply reply) override {
    CHECK(!replied_);
    replied_ = true;
    SetHead(reply, response_);
    response_.set_content(reply.body, reply.content_type);
  }

  void Stream(HttpReply head, StreamBody body) override {
    CHECK(!replied_);
    replied_ = true;
    SetHead(head, response_);
    const auto write = [this_connection = &connection_, body = std::move(body)](
                           size_t, httplib::DataSink& sink) {
      efedllm::Stream stream(*this_connection, sink);
      if (stream.ClientGone()) return false;
      try {
        body(stream);
      } catch (const std::exception& error) {  // cut short, so that the client can tell
        spdlog::error("http: a streamed reply failed: {}", error.what());
        return false;
      }
      if (stream.ClientGone()) return false;
      sink.done();
      return true;
    };
    response_.set_chunked_content_provider(head.content_type, write);
  }

 private:
  const HttpRequest request_;
  const HttpConnection& connection_;
  httplib::Response& response_;
  bool replied_ = false;
};

}  // namespace

std::optional<absl::string_view> HttpRequest::Header(absl::string_view name) const {
  return First(headers, name, /*any_case=*/true);
}
std::optional<absl::string_view> HttpRequest::Query(absl::string_view name) const {
  return First(query, name, /*any_case=*/false);
}

bool HttpStream::WriteEvent(absl::string_view data) {
  std::string event;
  for (const absl::string_view line : absl::StrSplit(data, '\n')) {
    absl::StrAppend(&event, "data: ", line, "\n");
  }
  event += '\n';
  return Write(event);
}

struct HttpServer::Impl final : httplib::Server {
  // What one connection's thread knows of the request that it is at.
  struct Session {
    HttpConnection connection;
    bool refuse = false;      // over max_connections
    bool replied = false;     // the handler did; what httplib adds is not an error of its own
    bool must_close = false;  // the request was not read to its end
    // Guarded by Impl::mu.
    bool busy = false;  // between a request's first byte and its reply
    bool cut = false;   // it ended to make room
    absl::Time idle_since = SteadyNow();
    absl::string_view why = "";  // of an error that httplib has no words for
  };

  const HttpServerOptions options;
  const HttpServer::Handler handler;
  const ErrorReply error;
  std::thread listener;
  int port = 0;

  std::atomic<size_t> large_bytes = 0;
  absl::Mutex mu;
  std::atomic<bool> stopping = false;  // written under mu
  std::set<Session*> sessions ABSL_GUARDED_BY(mu);

  Impl(const HttpServerOptions& options, HttpServer::Handler handler, ErrorReply error);
  absl::Status Listen();
  void StopListening() { ::shutdown(svr_sock_, SHUT_RDWR); }
  bool process_and_close_socket(socket_t fd) override;
  void Serve(Session& session);
  bool SetBusy(Session& session, bool busy) ABSL_LOCKS_EXCLUDED(mu);
  bool HasRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool AllIdle() const ABSL_SHARED_LOCKS_REQUIRED(mu);
  void CutIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  HandlerResponse Refuse(int status, absl::string_view why, httplib::Response& response);
  HandlerResponse BeforeBody(const httplib::Request& request, httplib::Response& response);
  void Handle(const httplib::Request& request, httplib::Response& response);
  HandlerResponse OnError(httplib::Response& response);

  // httplib hands its callbacks no connection, but runs them on the connection's thread.
  static Session*& current() {
    thread_local Session* session = nullptr;
    return session;
  }
};

HttpServer::Impl::Impl(const HttpServerOptions& options, HttpServer::Handler handler,
                       ErrorReply error)
    : options(options), handler(std::move(handler)), error(std::move(error)) {
  new_task_queue = [this] {
    return new ConnectionThreads(this->options.max_connections + kPoliteRefusals);
  };
  set_payload_max_length(options.max_body_bytes);
  set_keep_alive_timeout(absl::ToInt64Seconds(options.idle_timeout));  // what replies announce
  set_keep_alive_max_count(1'000'000);
  set_socket_options([](socket_t fd) {  // httplib's default lets two servers share a port
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  });
  set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
    return BeforeBody(request, response);
  });
  const httplib::Server::Handler handle = [this](const httplib::Request& request,
                                                 httplib::Response& response) {
    Handle(request, response);
  };
  constexpr char kAny[] = R"([\s\S]*)";
  Get(kAny, handle).Post(kAny, handle).Put(kAny, handle).Patch(kAny, handle);
  Delete(kAny, handle).Options(kAny, handle);
  set_error_handler(HandlerWithResponse(
      [this](const httplib::Request&, httplib::Response& response) { return OnError(response); }));
}

absl::Status HttpServer::Impl::Listen() {
  ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(options.address));
  errno = 0;
  if (address.port == 0) {
    port = bind_to_any_port(address.host);
  } else {
    port = bind_to_port(address.host, address.port) ? address.port : -1;
  }
  if (port <= 0) {
    return absl::UnavailableError(
        absl::StrCat("can't serve HTTP at ", options.address, ": ",
                     errno != 0 ? std::strerror(errno) : "the host is not an address of ours"));
  }
  ::listen(svr_sock_, kBacklog);
  listener = std::thread([this] { listen_after_bind(); });
  return absl::OkStatus();
}

bool HttpServer::Impl::process_and_close_socket(socket_t fd) {
  if (ConnectionThreads::refusing()) {
    RefuseUnheard(fd, error(503, kTooManyConnections));
    return false;
  }
  Session session{.connection = HttpConnection(fd, options, large_bytes)};
  {
    absl::MutexLock lock(&mu);
    session.refuse = !HasRoom();
    if (session.refuse) session.connection.Hurry(kRefusalTime);
    sessions.insert(&session);
    if (stopping) session.connection.Cut();
  }
  current() = &session;
  try {
    Serve(session);
  } catch (const std::exception& error) {
    spdlog::error("http: a connection failed: {}", error.what());
  }
  current() = nullptr;
  absl::MutexLock lock(&mu);
  sessions.erase(&session);
  return true;
}

void HttpServer::Impl::Serve(Session& session) {
  HttpConnection& connection = session.connection;
  while (connection.AwaitRequest() && SetBusy(session, true)) {
    connection.BeginRequest();
    session.replied = false;
    bool closed = false;
    const bool ok = process_request(
        connection, session.refuse || stopping, closed, [](httplib::Request& request) {
          request.ranges.clear();                    // our replies have no parts
          request.headers.erase("Accept-Encoding");  // nor are zipped
          // Else a body without a length lasts until the client closes.
          if (!request.has_header("Content-Length") && !request.has_header("Transfer-Encoding")) {
            request.set_header("Content-Length", "0");
          }
        });
    connection.EndRequest();
    if (!ok || closed || session.must_close || session.refuse) break;
    if (!SetBusy(session, false)) break;
  }
}

// False: the server stops, and the session must end.
bool HttpServer::Impl::SetBusy(Session& session, bool busy) {
  absl::MutexLock lock(&mu);
  session.busy = busy;
  if (!busy) session.idle_since = SteadyNow();
  return !stopping;
}

// Where all places are taken, the connection that has waited longest for a request makes room: idle
// clients keep nobody out.
bool HttpServer::Impl::HasRoom() {
  size_t open = 0;
  Session* longest = nullptr;
  for (Session* session : sessions) {
    if (session->cut) continue;
    ++open;
    if (session->busy) continue;
    if (longest == nullptr || session->idle_since < longest->idle_since) longest = session;
  }
  if (open < options.max_connections) return true;
  if (longest == nullptr || SteadyNow() - longest->idle_since < options.least_idle) return false;
  longest->cut = true;
  longest->connection.Cut();
  return true;
}

bool HttpServer::Impl::AllIdle() const {
  for (const Session* session : sessions) {
    if (session->busy) return false;
  }
  return true;
}

void HttpServer::Impl::CutIdle() {
  for (Session* session : sessions) {
    if (!session->busy) session->connection.Cut();
  }
}

httplib::Server::HandlerResponse HttpServer::Impl::Refuse(int status, absl::string_view why,
                                                          httplib::Response& response) {
  current()->must_close = true;
  current()->why = why;
  response.status = status;  // OnError writes the body
  response.set_header("Connection", "close");
  return HandlerResponse::Handled;
}

httplib::Server::HandlerResponse HttpServer::Impl::BeforeBody(const httplib::Request& request,
                                                              httplib::Response& response) {
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (current()->refuse && !reads) return Refuse(503, kTooManyConnections, response);
  if (request.path.size() > kMaxPathBytes) return Refuse(414, "the path is too long", response);
  if (!HasOneLength(request)) {  // else a proxy and we might see different requests
    return Refuse(400, "the request must have one length: Content-Length or Transfer-Encoding",
                  response);
  }
  if (request.get_header_value<uint64_t>("Content-Length") > options.max_body_bytes) {
    return Refuse(413, "the request's body is too large", response);
  }
  const std::string encoding = request.get_header_value("Content-Encoding");
  if (!encoding.empty() && !absl::EqualsIgnoreCase(encoding, "identity")) {
    // httplib would unpack it without a bound.
    return Refuse(415, "compressed request bodies are not accepted", response);
  }
  return HandlerResponse::Unhandled;
}

void HttpServer::Impl::Handle(const httplib::Request& request, httplib::Response& response) {
  if (request.body.size() > options.max_body_bytes) {
    Refuse(413, "the request's body is too large", response);
    return;
  }
  Session& session = *current();
  Exchange exchange(ToRequest(request), session.connection, response);
  try {
    handler(exchange);
    if (!exchange.replied()) spdlog::error("http: {} got no reply", exchange.request().path);
  } catch (const std::exception& error) {
    spdlog::error("http: {} failed: {}", exchange.request().path, error.what());
    response = httplib::Response();
  }
  session.replied = exchange.replied() && response.status != -1;
  if (!session.replied) response.status = 500;
}

httplib::Server::HandlerResponse HttpServer::Impl::OnError(httplib::Response& response) {
  Session& session = *current();
  if (session.replied) return HandlerResponse::Unhandled;
  session.must_close = true;
  absl::string_view why = session.why;
  if (session.connection.header_too_large()) {
    response.status = 431;
    why = "the request's headers are too large";
  } else if (session.connection.body_too_large()) {
    response.status = 413;
    why = "the request's body is too large";
  } else if (session.connection.no_room()) {
    response.status = 503;
    why = "too many large requests at once; try again later";
  } else if (session.connection.read_timed_out()) {
    response.status = 408;
    why = "the request took too long to arrive";
  } else if (why.empty()) {
    why = response.status == 500   ? "internal error"
          : response.status == 414 ? "the path is too long"
                                   : "malformed HTTP request";
  }
  const HttpReply reply = error(response.status, why);
  SetHead(reply, response);
  response.set_content(reply.body, reply.content_type);
  return HandlerResponse::Handled;
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              Handler handler, ErrorReply error) {
  auto impl = std::make_unique<Impl>(options, std::move(handler), std::move(error));
  RETURN_IF_ERROR(impl->Listen());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

int HttpServer::port() const { return impl_->port; }
bool HttpServer::stopping() const { return impl_->stopping; }

void HttpServer::Stop(absl::Duration grace) {
  {
    absl::MutexLock lock(&impl_->mu);
    if (impl_->stopping) return;
    impl_->stopping = true;
    impl_->CutIdle();
  }
  impl_->StopListening();
  {
    absl::MutexLock lock(&impl_->mu);
    impl_->mu.AwaitWithTimeout(absl::Condition(impl_.get(), &Impl::AllIdle), grace);
    for (Impl::Session* session : impl_->sessions) session->connection.Cut();
  }
  impl_->listener.join();  // it waits for the connections' threads
}

HttpServer::~HttpServer() { Stop(absl::ZeroDuration()); }

}  // namespace efedllm
