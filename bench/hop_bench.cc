// What one hop costs: two processes on loopback play ping-pong with TLS, and a hop is half a round
// trip. Prints percentiles in microseconds for our HopSender and HopReceiver, and for the other
// gRPC APIs that could have carried them (hop_alternatives.h). Figures and choice:
// docs/decisions/0008-hop-transport.md.
//   hop_bench [bytes of a frame] [round trips]
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "common/check.h"
#include "hop_alternatives.h"
#include "net/credentials.h"

namespace efedllm {
namespace {

struct Ends {
  Identity here;
  Identity there;
};

Ends MakeEnds() {
  std::string dir = (std::filesystem::temp_directory_path() / "hop_bench.XXXXXX").string();
  CHECK(mkdtemp(dir.data()) != nullptr);
  const auto ca = CertificateAuthority::OpenOrCreate(dir, absl::Now());
  CHECK(ca.ok());
  const auto node = [&] {
    const std::string key = NewNodeKey();
    const auto issued = (*ca)->SignNode(*CertificateRequest(key), absl::Now(), absl::Hours(1));
    return *MakeIdentity(key, issued->certificate_der, (*ca)->certificate_pem());
  };
  Ends ends{.here = node(), .there = node()};
  std::filesystem::remove_all(dir);
  return ends;
}

void WritePort(int fd, int port) { CHECK(write(fd, &port, sizeof(port)) == sizeof(port)); }
int ReadPort(int fd) {
  int port = 0;
  CHECK(read(fd, &port, sizeof(port)) == sizeof(port));
  return port;
}

using MakeLink = std::function<std::unique_ptr<BenchLink>(const Identity& self, NodeId peer)>;

// The other process: sends back what it gets, until it gets a frame of one byte.
void Echo(const MakeLink& make, const Ends& ends, int from, int to) {
  auto link = make(ends.there, ends.here.node);
  WritePort(to, link->port());
  link->Dial("127.0.0.1:" + std::to_string(ReadPort(from)));
  while (true) {
    grpc::ByteBuffer frame = link->Receive();
    if (frame.Length() == 1) break;
    link->Send(std::move(frame));
  }
}

std::vector<double> PingPong(BenchLink& link, size_t frame_bytes, size_t round_trips) {
  const std::string payload(frame_bytes, 'x');
  std::vector<double> micros;
  for (size_t i = 0; i < round_trips; ++i) {
    const absl::Time start = absl::Now();
    const grpc::Slice slice(payload.data(), payload.size());
    link.Send(grpc::ByteBuffer(&slice, 1));
    CHECK(link.Receive().Length() == frame_bytes);
    micros.push_back(absl::ToDoubleMicroseconds(absl::Now() - start) / 2);
  }
  const grpc::Slice end("x");
  link.Send(grpc::ByteBuffer(&end, 1));
  return micros;
}

void Report(const char* name, std::vector<double> micros) {
  micros.erase(micros.begin(), micros.begin() + static_cast<ptrdiff_t>(micros.size() / 10));
  std::sort(micros.begin(), micros.end());
  const auto at = [&](double share) {
    return micros[static_cast<size_t>(share * static_cast<double>(micros.size() - 1))];
  };
  std::printf("%-44s p50 %7.1f   p90 %7.1f   p99 %7.1f us\n", name, at(0.5), at(0.9), at(0.99));
}

// Forks before gRPC starts its threads: the other end is a process of its own, and so is this one.
void RunOne(const char* name, const MakeLink& make, size_t frame_bytes, size_t round_trips) {
  const pid_t runner = fork();
  CHECK(runner >= 0);
  if (runner != 0) {
    CHECK(waitpid(runner, nullptr, 0) == runner);
    return;
  }
  const Ends ends = MakeEnds();
  int up[2], down[2];
  CHECK(pipe(up) == 0 && pipe(down) == 0);
  const pid_t echo = fork();
  CHECK(echo >= 0);
  if (echo == 0) {
    Echo(make, ends, down[0], up[1]);
    _exit(0);
  }
  auto link = make(ends.here, ends.there.node);
  WritePort(down[1], link->port());
  link->Dial("127.0.0.1:" + std::to_string(ReadPort(up[0])));
  Report(name, PingPong(*link, frame_bytes, round_trips));
  std::fflush(stdout);
  CHECK(waitpid(echo, nullptr, 0) == echo);
  _exit(0);  // each way of carrying hops has its processes to itself
}

int Main(int argc, char** argv) {
  const size_t frame_bytes = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 8192 + 128;
  const size_t round_trips = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 5000;
  for (const BenchVariant& variant : BenchVariants()) {
    RunOne(variant.name, variant.make, frame_bytes, round_trips);
  }
  return 0;
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) { return efedllm::Main(argc, argv); }
