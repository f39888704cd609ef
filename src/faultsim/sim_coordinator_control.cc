// The coordinator's ends of the control streams, as coordinator/control_service.cc has them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "faultsim/sim_coordinator.h"
#include "wire/link_wire.h"

namespace efedllm::faultsim {

class SimCoordinator::Link final : public WorkerLink {
 public:
  Link(Network::ConnectionPtr connection, bool closes)
      : connection_(std::move(connection)), closes_(closes) {}

  void Assign(const Assignment& assignment) override {
    v1::CoordinatorMessage message;
    *message.mutable_assignment() = ToWire(assignment);
    Send(message);
  }
  void Release(Epoch epoch) override {
    v1::CoordinatorMessage message;
    message.mutable_release()->set_epoch(epoch.v);
    Send(message);
  }
  void Measure(const MeasureLinks&) override {}
  void HandOver(const efedllm::HandOver& hand_over) override {
    v1::CoordinatorMessage message;
    *message.mutable_hand_over() = ToWire(hand_over);
    Send(message);
  }
  void Prefetch(const efedllm::Prefetch&) override {}
  void Close(const absl::Status& why) override {
    if (closes_) connection_->Close(Connection::kListener, why);
  }

  void Send(const v1::CoordinatorMessage& message) {
    connection_->Send(Connection::kListener, message.SerializeAsString());
  }

 private:
  const Network::ConnectionPtr connection_;
  const bool closes_;
};

// One control stream.
struct SimCoordinator::Stream {
  NodeId node;
  Network::ConnectionPtr connection;
  std::shared_ptr<Link> link;
  bool attached = false;
  uint64_t ping = 0;
  std::optional<absl::Time> ping_sent;  // none: it was answered
};

bool SimCoordinator::Accept(const Network::ConnectionPtr& connection) {
  if (life_ == nullptr) return false;
  switch (connection->kind()) {
    case ConnectionKind::kHop:
      life_->receiver.Accept(connection);
      return true;
    case ConnectionKind::kEcho:
      connection->set_handler(Connection::kListener, {[connection](const std::string& bytes) {
                                                        connection->Send(Connection::kListener,
                                                                         bytes);
                                                      },
                                                      nullptr});
      return true;
    case ConnectionKind::kKv:
      return false;
    case ConnectionKind::kControl:
      break;
  }
  auto stream = std::make_shared<Stream>();
  stream->node = connection->process(Connection::kDialler).node;
  stream->connection = connection;
  stream->link = std::make_shared<Link>(connection, !world_.Is(Mutation::kGhostLinks));
  std::erase_if(life_->streams,
                [](const auto& known) { return !known->connection->open(Connection::kListener); });
  life_->streams.push_back(stream);
  connection->set_handler(Connection::kListener,
                          {[this, stream](const std::string& bytes) { OnControl(stream, bytes); },
                           [this, stream](const absl::Status&) {
                             if (stream->attached)
                               life_->keeper.OnDetached(stream->node, stream->link.get());
                             WakeKeeper();
                           }});
  return true;
}

void SimCoordinator::OnControl(const std::shared_ptr<Stream>& stream, const std::string& bytes) {
  v1::WorkerMessage message;
  absl::Status taken = absl::InvalidArgumentError("a message that nobody can read");
  if (message.ParseFromString(bytes)) taken = TakeMessage(*stream, message);
  if (!world_.coordinator.up) return;
  if (!taken.ok()) {
    world_.Say("coordinator", "refuses worker ", stream->node.v, ": ", taken.message());
    if (stream->attached) life_->keeper.OnDetached(stream->node, stream->link.get());
    stream->link->Close(taken);
  }
  WakeKeeper();
}

absl::Status SimCoordinator::TakeMessage(Stream& stream, const v1::WorkerMessage& message) {
  EpochKeeper& keeper = life_->keeper;
  if (!stream.attached) return TakeHello(stream, message);
  const Link* link = stream.link.get();
  switch (message.message_case()) {
    case v1::WorkerMessage::kStageStatus: {
      ASSIGN_OR_RETURN(const StageReport report, FromWire(message.stage_status()));
      keeper.OnReport(stream.node, link, report);
      return absl::OkStatus();
    }
    case v1::WorkerMessage::kHeartbeat: {
      ASSIGN_OR_RETURN(const StageCounters counters, FromWire(message.heartbeat()));
      keeper.OnHeartbeat(stream.node, link, counters);
      Ping(stream);
      return absl::OkStatus();
    }
    case v1::WorkerMessage::kPong: {
      ASSIGN_OR_RETURN(const Pong pong, FromWire(message.pong()));
      if (pong.id != stream.ping || !stream.ping_sent) return absl::OkStatus();
      keeper.OnPong(stream.node, link, *std::exchange(stream.ping_sent, std::nullopt),
                    life_->clock.Now(), pong.worker_time);
      return absl::OkStatus();
    }
    case v1::WorkerMessage::kHandedOver: {
      ASSIGN_OR_RETURN(const HandedOver handed_over, FromWire(message.handed_over()));
      keeper.OnHandedOver(stream.node, link, handed_over);
      return absl::OkStatus();
    }
    case v1::WorkerMessage::kLeaving:
      keeper.OnLeaving(stream.node, link);
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError("not a message that a worker sends now");
  }
}

size_t SimCoordinator::Links(NodeId node) const {
  return static_cast<size_t>(
      std::count_if(life_->streams.begin(), life_->streams.end(), [&](const auto& stream) {
        return stream->node == node && stream->attached &&
               stream->connection->open(Connection::kListener);
      }));
}

absl::Status SimCoordinator::TakeHello(Stream& stream, const v1::WorkerMessage& message) {
  if (!message.has_hello()) {
    return absl::InvalidArgumentError("a control stream begins with hello");
  }
  ASSIGN_OR_RETURN(const Hello hello, FromWire(message.hello()));
  v1::CoordinatorMessage welcome;
  welcome.mutable_welcome()->set_node(stream.node.v);
  welcome.mutable_welcome()->set_heartbeat_millis(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(life_->keeper.heartbeat())));
  stream.link->Send(welcome);
  RETURN_IF_ERROR(life_->keeper.Attach(stream.node, hello, stream.link));
  stream.attached = true;
  return absl::OkStatus();
}

void SimCoordinator::Ping(Stream& stream) {
  if (stream.ping_sent) return;
  v1::CoordinatorMessage message;
  message.mutable_ping()->set_id(++stream.ping);
  stream.ping_sent = life_->clock.Now();
  stream.link->Send(message);
}

}  // namespace efedllm::faultsim
