#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

absl::Status NotAnAddress(absl::string_view address) {
  return absl::InvalidArgumentError(absl::StrCat("\"", absl::CHexEscape(address.substr(0, 80)),
                                                 "\" is not an address: write HOST:PORT, or "
                                                 "[HOST]:PORT for IPv6"));
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(absl::string_view address) {
  constexpr size_t kLongestName = 253;  // of DNS
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return NotAnAddress(address);
  absl::string_view host = address.substr(0, colon);
  const absl::string_view port = address.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (absl::StrContains(host, ':')) {
    return NotAnAddress(address);
  }
  uint32_t number = 0;
  const bool digits = !port.empty() && absl::ascii_isdigit(port.front());
  if (host.empty() || host.size() > kLongestName || !digits || !absl::SimpleAtoi(port, &number) ||
      number > 65535) {
    return NotAnAddress(address);
  }
  return HostPort{std::string(host), static_cast<uint16_t>(number)};
}

std::string FormatHostPort(const HostPort& address) {
  const bool v6 = absl::StrContains(address.host, ':');
  return v6 ? absl::StrCat("[", address.host, "]:", address.port)
            : absl::StrCat(address.host, ":", address.port);
}

bool IsLoopback(absl::string_view address) {
  const absl::StatusOr<HostPort> parsed = ParseHostPort(address);
  if (!parsed.ok()) return false;
  if (absl::EqualsIgnoreCase(parsed->host, "localhost")) return true;
  in_addr v4;
  if (inet_pton(AF_INET, parsed->host.c_str(), &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
  in6_addr v6;
  if (inet_pton(AF_INET6, parsed->host.c_str(), &v6) != 1) return false;
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

}  // namespace efedllm
