// HOST:PORT and [V6]:PORT.
#ifndef EFEDLLM_NET_ADDRESS_H_
#define EFEDLLM_NET_ADDRESS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace efedllm {

struct HostPort {
  std::string host;  // without brackets, not empty
  uint16_t port = 0;
};

// Does not resolve anything. InvalidArgument: neither form; the message repeats the text,
// shortened.
absl::StatusOr<HostPort> ParseHostPort(absl::string_view address);

// HOST:PORT, or [HOST]:PORT if the host has a colon.
std::string FormatHostPort(const HostPort& address);

// True for 127.0.0.0/8, ::1 and localhost: where --insecure is allowed. address: HOST:PORT,
// [V6]:PORT.
bool IsLoopback(absl::string_view address);

}  // namespace efedllm

#endif  // EFEDLLM_NET_ADDRESS_H_
