#include "wire/status_wire.h"

#include "common/logging.h"

namespace efedllm {
namespace {

// Both libraries use the same numbers.
constexpr int kLastCode = 16;
constexpr size_t kMaxMessageBytes = 1024;

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message().substr(0, kMaxMessageBytes)));
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int code = status.error_code();
  return absl::Status(code > 0 && code <= kLastCode ? static_cast<absl::StatusCode>(code)
                                                    : absl::StatusCode::kUnknown,
                      Printable(status.error_message(), kMaxMessageBytes));
}

}  // namespace efedllm
