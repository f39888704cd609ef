#include "faultsim/sim_hop.h"

#include <algorithm>
#include <utility>

namespace efedllm::faultsim {
namespace {

constexpr size_t kUnreadFrames = 64;

}  // namespace

std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

grpc::ByteBuffer BufferOf(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

SimFrameSender::SimFrameSender(Network& network, Process& from, Process& to)
    : connection_(network.Dial(from, to, ConnectionKind::kHop)) {}

SimFrameSender::~SimFrameSender() { connection_->Close(Connection::kDialler, absl::OkStatus()); }

absl::Status SimFrameSender::Send(grpc::ByteBuffer frame, absl::Duration) {
  if (connection_->Send(Connection::kDialler, BytesOf(frame))) return absl::OkStatus();
  return absl::UnavailableError("the stream broke");
}

bool SimHopReceiver::Wants(NodeId peer) const {
  return std::find(upstreams_.begin(), upstreams_.end(), peer) != upstreams_.end();
}

void SimHopReceiver::Accept(const Network::ConnectionPtr& connection) {
  std::erase_if(inflows_, [](const auto& inflow) {
    return !inflow->connection->open(Connection::kListener) && inflow->unread.empty();
  });
  auto inflow = std::make_shared<Inflow>();
  inflow->connection = connection;
  inflow->peer = connection->process(Connection::kDialler).node;
  inflow->read = Wants(inflow->peer);
  inflows_.push_back(inflow);
  connection->set_handler(
      Connection::kListener,
      {[this, inflow](const std::string& bytes) { OnMessage(inflow, bytes); }, nullptr});
}

void SimHopReceiver::OnMessage(const std::shared_ptr<Inflow>& inflow, const std::string& bytes) {
  if (inflow->read) return Take(*inflow, bytes);
  if (inflow->unread.size() < kUnreadFrames) inflow->unread.push_back(bytes);
}

void SimHopReceiver::SetUpstreams(std::vector<NodeId> peers) {
  upstreams_ = std::move(peers);
  const auto inflows = inflows_;  // taking a frame may come back here
  for (const auto& inflow : inflows) {
    const bool wanted = Wants(inflow->peer);
    if (inflow->read && !wanted) {
      inflow->connection->Close(Connection::kListener, absl::OkStatus());
    }
    inflow->read = wanted;
    if (!wanted) continue;
    for (const std::string& bytes : std::exchange(inflow->unread, {})) Take(*inflow, bytes);
  }
  std::erase_if(inflows_, [](const auto& inflow) {
    return !inflow->connection->open(Connection::kListener) && inflow->unread.empty();
  });
}

}  // namespace efedllm::faultsim
