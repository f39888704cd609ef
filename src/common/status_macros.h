// RETURN_IF_ERROR and ASSIGN_OR_RETURN over absl::Status.
#ifndef EFEDLLM_COMMON_STATUS_MACROS_H_
#define EFEDLLM_COMMON_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define EFEDLLM_CONCAT_INNER(a, b) a##b
#define EFEDLLM_CONCAT(a, b) EFEDLLM_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                  \
  do {                                               \
    absl::Status efedllm_status = (expression);      \
    if (!efedllm_status.ok()) return efedllm_status; \
  } while (false)

#define ASSIGN_OR_RETURN(target, expression) \
  EFEDLLM_ASSIGN_OR_RETURN(EFEDLLM_CONCAT(efedllm_status_or_, __LINE__), target, expression)

#define EFEDLLM_ASSIGN_OR_RETURN(status_or, target, expression) \
  auto status_or = (expression);                                \
  if (!status_or.ok()) return std::move(status_or).status();    \
  target = *std::move(status_or)

#endif  // EFEDLLM_COMMON_STATUS_MACROS_H_
