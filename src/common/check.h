// CHECK ends the process: for our own bugs only. What a file, a peer or a client sends gets a
// Status.
#ifndef EFEDLLM_COMMON_CHECK_H_
#define EFEDLLM_COMMON_CHECK_H_

#include <cstdio>
#include <cstdlib>

namespace efedllm {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace efedllm

#define CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::efedllm::CheckFailed(__FILE__, __LINE__, #condition))

#endif  // EFEDLLM_COMMON_CHECK_H_
