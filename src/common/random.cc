#include "common/random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstring>

#include "common/check.h"

namespace efedllm {

std::string SecureRandomBytes(size_t n) {
  std::string bytes(n, '\0');
  for (size_t have = 0; have < n;) {
    const ssize_t got = getrandom(bytes.data() + have, n - have, 0);
    CHECK(got > 0 || errno == EINTR);
    if (got > 0) have += static_cast<size_t>(got);
  }
  return bytes;
}

uint64_t SecureRandomU64() {
  uint64_t value;
  std::memcpy(&value, SecureRandomBytes(sizeof value).data(), sizeof value);
  return value;
}

}  // namespace efedllm
