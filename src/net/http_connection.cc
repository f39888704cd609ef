#include "net/http_connection.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace efedllm {
namespace {

constexpr absl::Duration kLingerTimeout = absl::Seconds(1);
constexpr int kSendBufferBytes = 128 << 10;
// A large reply may take longer than one write's timeout, but a client must read this fast.
constexpr double kSlowestBytesPerSecond = 64 << 10;

// False: nothing happened until the deadline, or poll failed.
bool Await(int fd, short events, absl::Time deadline) {
  while (true) {
    const absl::Duration left = std::max(deadline - SteadyNow(), absl::ZeroDuration());
    const int64_t ms = std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, 60'000);
    pollfd poller{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&poller, 1, static_cast<int>(ms));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
    if (SteadyNow() >= deadline) return false;
  }
}

void ToText(const sockaddr_storage& address, std::string& ip, int& port) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof(text));
    port = ntohs(v4.sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text));
    port = ntohs(v6.sin6_port);
  }
  ip = text;
}

}  // namespace

HttpConnection::HttpConnection(int fd, const HttpServerOptions& options,
                               std::atomic<size_t>& large_bytes)
    : fd_(fd),
      options_(options),
      max_request_bytes_(options.max_body_bytes + kMaxLineBytes),
      idle_timeout_(options.idle_timeout),
      read_timeout_(options.read_timeout),
      buffer_{},
      large_bytes_(large_bytes) {
  const int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // an event is sent when it is there
  // The kernel would take megabytes for a client that reads nothing, before anybody could tell.
  setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &kSendBufferBytes, sizeof(kSendBufferBytes));
}

// A close with unread input resets the connection, and the reset may overtake the reply.
HttpConnection::~HttpConnection() {
  EndRequest();
  shutdown(fd_, SHUT_WR);
  const absl::Time deadline = SteadyNow() + kLingerTimeout;
  while (SteadyNow() < deadline && Await(fd_, POLLIN, deadline) &&
         recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT) > 0) {
  }
  close(fd_);
}

void HttpConnection::Hurry(absl::Duration most) {
  idle_timeout_ = std::min(idle_timeout_, most);
  read_timeout_ = std::min(read_timeout_, most);
}

bool HttpConnection::AwaitRequest() {
  return buffered_begin_ < buffered_end_ || Fill(SteadyNow() + idle_timeout_);
}

void HttpConnection::BeginRequest() {
  read_deadline_ = SteadyNow() + read_timeout_;
  line_bytes_ = 0;
  request_bytes_ = 0;
  read_timed_out_ = false;
  no_room_ = false;
}

void HttpConnection::EndRequest() { large_bytes_ -= std::exchange(large_bytes_taken_, 0); }

bool HttpConnection::TakeLargeBytes() {
  if (large_bytes_.fetch_add(kFreeBytes) + kFreeBytes > options_.max_large_bytes) {
    large_bytes_ -= kFreeBytes;
    no_room_ = true;
    return false;
  }
  large_bytes_taken_ += kFreeBytes;
  return true;
}

bool HttpConnection::ClientGone() const {
  if (write_failed_) return true;
  pollfd poller{.fd = fd_, .events = POLLRDHUP, .revents = 0};
  return poll(&poller, 1, 0) > 0 && (poller.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

void HttpConnection::Cut() { shutdown(fd_, SHUT_RDWR); }

bool HttpConnection::Fill(absl::Time deadline) {
  while (true) {
    if (!Await(fd_, POLLIN, deadline)) {
      read_timed_out_ = true;
      return false;
    }
    const ssize_t got = recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got > 0) {
      buffered_begin_ = 0;
      buffered_end_ = static_cast<size_t>(got);
      return true;
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) return false;
  }
}

bool HttpConnection::is_readable() const {
  return buffered_begin_ < buffered_end_ || Await(fd_, POLLIN, read_deadline_);
}

bool HttpConnection::is_writable() const {
  return !write_failed_ && Await(fd_, POLLOUT, SteadyNow() + options_.write_timeout);
}

ssize_t HttpConnection::read(char* data, size_t size) {
  if (size == 1 && ++line_bytes_ > kMaxLineBytes) return -1;
  if (buffered_begin_ == buffered_end_ && !Fill(read_deadline_)) return -1;
  const size_t taken = std::min(size, buffered_end_ - buffered_begin_);
  request_bytes_ += taken;
  if (request_bytes_ > max_request_bytes_) return -1;
  if (request_bytes_ > kFreeBytes + large_bytes_taken_ && !TakeLargeBytes()) return -1;
  std::memcpy(data, buffer_.data() + buffered_begin_, taken);
  buffered_begin_ += taken;
  return static_cast<ssize_t>(taken);
}

ssize_t HttpConnection::write(const char* data, size_t size) {
  const absl::Duration transfer = absl::Seconds(static_cast<double>(size) / kSlowestBytesPerSecond);
  const absl::Time deadline = SteadyNow() + options_.write_timeout + transfer;
  for (size_t written = 0; written < size && !write_failed_;) {
    const ssize_t sent = send(fd_, data + written, size - written, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      written += static_cast<size_t>(sent);
    } else if (!(sent < 0 && (errno == EAGAIN || errno == EINTR)) ||
               !Await(fd_, POLLOUT, std::min(deadline, SteadyNow() + options_.write_timeout))) {
      write_failed_ = true;
    }
    if (written < size && SteadyNow() >= deadline) write_failed_ = true;
  }
  return write_failed_ ? -1 : static_cast<ssize_t>(size);
}

void HttpConnection::get_remote_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    ToText(address, ip, port);
  }
}

void HttpConnection::get_local_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    ToText(address, ip, port);
  }
}

void RefuseUnheard(int fd, const HttpReply& reply) {
  std::string text = absl::StrCat(
      "HTTP/1.1 ", reply.status,
      " Service Unavailable\r\nConnection: close\r\nContent-Type: ", reply.content_type,
      "\r\nContent-Length: ", reply.body.size(), "\r\n");
  for (const auto& [name, value] : reply.headers) {
    absl::StrAppend(&text, name, ": ", value, "\r\n");
  }
  absl::StrAppend(&text, "\r\n", reply.body);
  send(fd, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(fd, SHUT_WR);
  // What came is read, since a close with unread bytes resets the connection, see above.
  std::array<char, 8192> unread;
  for (int i = 0; i < 8 && recv(fd, unread.data(), unread.size(), MSG_DONTWAIT) > 0; ++i) {
  }
  close(fd);
}

}  // namespace efedllm
