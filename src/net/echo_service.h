// The answering end of link_probe.h, on the port where hops come in. For this folder.
#ifndef EFEDLLM_NET_ECHO_SERVICE_H_
#define EFEDLLM_NET_ECHO_SERVICE_H_

#include <grpcpp/generic/async_generic_service.h>

#include <atomic>
#include <cstddef>

#include "absl/time/time.h"
#include "net/credentials.h"

namespace efedllm {

// What an echo may bring, and how long it may take. Both ends keep to it.
inline constexpr size_t kMaxEchoBytes = 1 << 20;
inline constexpr absl::Duration kEchoTimeout = absl::Seconds(4);

// Thread-safe. Lives at least as long as the server; transport is borrowed and outlives this.
class EchoService {
 public:
  explicit EchoService(const Transport& transport) : transport_(transport) {}

  // Takes one message and answers with an empty one: to nodes alone, a few at a time, and not to a
  // caller that would wait for long. The reactor belongs to gRPC.
  grpc::ServerGenericBidiReactor* Answer(const grpc::GenericCallbackServerContext& context);

 private:
  class Call;
  grpc::Status Admit(const grpc::GenericCallbackServerContext& context, int under_way) const;

  const Transport& transport_;
  std::atomic<int> under_way_ = 0;
};

}  // namespace efedllm

#endif  // EFEDLLM_NET_ECHO_SERVICE_H_
