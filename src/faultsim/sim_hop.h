// Both ends of a hop between simulated processes, as net/hop.h describes them.
#ifndef EFEDLLM_FAULTSIM_SIM_HOP_H_
#define EFEDLLM_FAULTSIM_SIM_HOP_H_

#include <grpcpp/support/byte_buffer.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/ids.h"
#include "faultsim/network.h"
#include "net/hop.h"

namespace efedllm::faultsim {

std::string BytesOf(const grpc::ByteBuffer& buffer);
grpc::ByteBuffer BufferOf(const std::string& bytes);

// Sends frames into a simulated stream.
class SimFrameSender final : public FrameSender {
 public:
  SimFrameSender(Network& network, Process& from, Process& to);
  ~SimFrameSender() override;
  absl::Status Send(grpc::ByteBuffer frame, absl::Duration timeout) override;

 private:
  Network::ConnectionPtr connection_;
};

// The streams into one process: those of its upstreams are read, those of nobody wait.
class SimHopReceiver {
 public:
  SimHopReceiver(const Clock& clock, std::function<void(HopFrame)> on_frame)
      : clock_(clock), on_frame_(std::move(on_frame)) {}

  void Accept(const Network::ConnectionPtr& connection);
  // Streams of others that were read so far end.
  void SetUpstreams(std::vector<NodeId> peers);
  size_t streams() const { return inflows_.size(); }

 private:
  struct Inflow {
    Network::ConnectionPtr connection;
    NodeId peer;
    bool read = false;
    std::deque<std::string> unread;
  };

  bool Wants(NodeId peer) const;
  void OnMessage(const std::shared_ptr<Inflow>& inflow, const std::string& bytes);
  void Take(const Inflow& inflow, const std::string& bytes) {
    on_frame_({inflow.peer, clock_.Now(), BufferOf(bytes)});
  }

  const Clock& clock_;
  const std::function<void(HopFrame)> on_frame_;
  std::vector<NodeId> upstreams_;
  std::vector<std::shared_ptr<Inflow>> inflows_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_SIM_HOP_H_
