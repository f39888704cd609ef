// The ways to carry a hop over gRPC that hop_bench compares, behind one face.
#ifndef EFEDLLM_BENCH_HOP_ALTERNATIVES_H_
#define EFEDLLM_BENCH_HOP_ALTERNATIVES_H_

#include <grpcpp/support/byte_buffer.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/credentials.h"

namespace efedllm {

// One node: it receives frames on its own server, and sends them to its peer's.
class BenchLink {
 public:
  virtual ~BenchLink() = default;
  virtual int port() const = 0;
  virtual void Dial(const std::string& address) = 0;
  virtual void Send(grpc::ByteBuffer frame) = 0;
  virtual grpc::ByteBuffer Receive() = 0;
};

struct BenchVariant {
  const char* name;
  std::function<std::unique_ptr<BenchLink>(const Identity& self, NodeId peer)> make;
};

std::vector<BenchVariant> BenchVariants();

}  // namespace efedllm

#endif  // EFEDLLM_BENCH_HOP_ALTERNATIVES_H_
