// One client's TCP connection as cpp-httplib reads and writes it, with what that library lacks: a
// deadline for a whole request, a bound on its size, a deadline for a write, and a look at whether
// the client is still there. For this folder.
#ifndef EFEDLLM_NET_HTTP_CONNECTION_H_
#define EFEDLLM_NET_HTTP_CONNECTION_H_

#include <httplib.h>

#include <array>
#include <atomic>
#include <string>

#include "absl/time/time.h"
#include "net/http_server.h"

namespace efedllm {

// Owns the socket. Used by the connection's own thread, but for what says otherwise.
class HttpConnection final : public httplib::Stream {
 public:
  // large_bytes counts over all connections what options.max_large_bytes bounds.
  HttpConnection(int fd, const HttpServerOptions& options, std::atomic<size_t>& large_bytes);
  ~HttpConnection() override;  // lets the client read the last reply before the socket closes

  // For a client that is only to be told to go: it waits for nothing longer than this.
  void Hurry(absl::Duration most);
  // Waits for a request's first byte. False: none came for idle_timeout, or the client is gone.
  bool AwaitRequest();
  // From here on the request's deadline and bounds count.
  void BeginRequest();
  // Gives back what the request took of large_bytes.
  void EndRequest();

  // True once the client has closed its side, too: who half-closes does not wait for the answer.
  // Thread-safe.
  bool ClientGone() const;
  // Ends both directions; reads, writes and ClientGone tell. Thread-safe.
  void Cut();

  // Why reading failed, for the right status.
  bool header_too_large() const { return line_bytes_ > kMaxLineBytes; }
  bool body_too_large() const { return request_bytes_ > max_request_bytes_; }
  bool no_room() const { return no_room_; }
  bool read_timed_out() const { return read_timed_out_; }

  // httplib::Stream
  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return fd_; }

 private:
  // Of request line, headers and sizes of chunks, which httplib reads byte by byte.
  static constexpr size_t kMaxLineBytes = 256u << 10;

  static constexpr size_t kFreeBytes = 256u << 10;  // of a request; then kFreeBytes a step

  bool Fill(absl::Time deadline);
  bool TakeLargeBytes();

  const int fd_;
  const HttpServerOptions& options_;
  const size_t max_request_bytes_;
  absl::Duration idle_timeout_;
  absl::Duration read_timeout_;
  std::array<char, 8192> buffer_;
  size_t buffered_begin_ = 0;
  size_t buffered_end_ = 0;
  absl::Time read_deadline_ = absl::InfinitePast();
  size_t line_bytes_ = 0;
  size_t request_bytes_ = 0;
  std::atomic<size_t>& large_bytes_;
  size_t large_bytes_taken_ = 0;
  bool no_room_ = false;
  bool read_timed_out_ = false;
  std::atomic<bool> write_failed_ = false;
};

// A 503 for a socket that nobody listens to: without waiting. Closes it.
void RefuseUnheard(int fd, const HttpReply& reply);

}  // namespace efedllm

#endif  // EFEDLLM_NET_HTTP_CONNECTION_H_
