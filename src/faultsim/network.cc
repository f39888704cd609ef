#include "faultsim/network.h"

#include <algorithm>

namespace efedllm::faultsim {
namespace {

// After so long without a sign of life the transport gives a connection up.
constexpr absl::Duration kKeepalive = absl::Seconds(4);
// A peer whose process died is told by its kernel.
constexpr absl::Duration kReset = absl::Milliseconds(1);

}  // namespace

bool Connection::Send(End from, std::string bytes) {
  if (!sides_[from].open || Dead(from)) return false;
  const MessageFate fate =
      network_.on_message_ ? network_.on_message_(*this, from, bytes) : MessageFate();
  if (Dead(from)) return false;  // it died while it sent
  if (fate.breaks) {
    network_.Break(shared_from_this(), "the connection was reset");
    return true;  // the sender learns of it later
  }
  if (fate.echo > absl::ZeroDuration()) {
    network_.loop_.After(
        fate.echo, nullptr,
        [&network = network_, &sender = process(from), &receiver = process(Other(from)),
         kind = kind_, bytes] { network.Inject(sender, receiver, kind, bytes); });
  }
  if (!fate.ahead.empty()) Transmit(from, {fate.ahead, false, absl::OkStatus()}, fate.delay, true);
  if (fate.lost) return true;
  if (fate.corrupted && !bytes.empty()) {
    const size_t at = static_cast<size_t>(network_.random_.Below(bytes.size()));
    bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 + network_.random_.Below(255)));
  }
  if (fate.twice) Transmit(from, {bytes, false, absl::OkStatus()}, fate.delay, true);
  Transmit(from, {std::move(bytes), false, absl::OkStatus()}, fate.delay, !fate.overtaken);
  return true;
}

void Connection::Transmit(End from, Side::Held message, absl::Duration delay, bool in_order) {
  Side& side = sides_[from];
  Process& to = process(Other(from));
  ++side.under_way;
  VirtualTime arrival =
      network_.loop_.now() + delay + network_.Delay(*side.process, to, message.bytes.size());
  if (in_order) side.last_arrival = arrival = std::max(arrival, side.last_arrival);
  // The world's event: whether the other end still lives is seen on arrival.
  network_.loop_.At(arrival, nullptr,
                    [self = shared_from_this(), from, message = std::move(message)]() mutable {
                      self->Arrive(from, std::move(message));
                    });
}

void Connection::Arrive(End from, Side::Held message) {
  Side& side = sides_[from];
  if (network_.blocked(*side.process, process(Other(from))) || !side.held.empty()) {
    side.held.push_back(std::move(message));
    return;
  }
  Deliver(from, message);
}

void Connection::Deliver(End from, const Side::Held& message) {
  const End to = Other(from);
  Process* receiver = sides_[to].process;
  if (Dead(to) || !sides_[to].open) {
    --sides_[from].under_way;
    return;
  }
  network_.loop_.At(network_.loop_.now(), receiver, [self = shared_from_this(), from, to, message] {
    --self->sides_[from].under_way;
    if (!self->sides_[to].open) return;
    if (message.close) return self->Drop(to, message.why);
    const Handler handler = self->sides_[to].handler;  // it may be replaced meanwhile
    if (handler.on_message) handler.on_message(message.bytes);
  });
}

void Connection::Close(End by, const absl::Status& why) {
  if (!sides_[by].open || Dead(by)) return;
  sides_[by].open = false;
  sides_[by].handler = Handler();
  Transmit(by, {"", true, why}, absl::ZeroDuration(), true);
}

void Connection::Drop(End end, const absl::Status& why) {
  if (!sides_[end].open) return;
  sides_[end].open = false;
  const Handler handler = std::exchange(sides_[end].handler, Handler());
  if (!Dead(end) && handler.on_close) handler.on_close(why);
}

Network::ConnectionPtr Network::Dial(Process& from, Process& to, ConnectionKind kind) {
  ConnectionPtr connection(new Connection(*this, kind));
  connection->sides_[Connection::kDialler].process = &from;
  connection->sides_[Connection::kDialler].life = from.life;
  connection->sides_[Connection::kListener].process = &to;
  connection->sides_[Connection::kListener].life = to.life;
  Forget();
  connections_.push_back(connection);
  const auto refuse = [this, connection] {
    loop_.After(Delay(connection->process(Connection::kListener),
                      connection->process(Connection::kDialler), 0),
                &connection->process(Connection::kDialler), [connection] {
                  connection->sides_[Connection::kListener].open = false;
                  connection->Drop(Connection::kDialler,
                                   absl::UnavailableError("connection refused"));
                });
  };
  if (!to.up) {
    refuse();
    return connection;
  }
  // The listener accepts before the first message arrives.
  const VirtualTime there = loop_.now() + Delay(from, to, 0);
  connection->sides_[Connection::kDialler].last_arrival = there;
  loop_.At(there, nullptr, [this, connection, refuse] {
    Process& listener = connection->process(Connection::kListener);
    if (connection->Dead(Connection::kListener)) return refuse();
    if (blocked(connection->process(Connection::kDialler), listener)) {
      GiveUpIfBlocked(connection, loop_.now());
    }
    const auto acceptor = acceptors_.find(&listener);
    if (acceptor == acceptors_.end() || !acceptor->second(connection)) refuse();
  });
  return connection;
}

absl::Duration Network::Delay(const Process& from, const Process& to, size_t bytes) {
  const auto slow = slowness_.find({&from, &to});
  const double factor = slow == slowness_.end() ? 1 : slow->second;
  return factor * (absl::Microseconds(100 + static_cast<int64_t>(random_.Below(300))) +
                   absl::Nanoseconds(10) * static_cast<int64_t>(bytes));
}

void Network::Block(const Process& from, const Process& to) {
  if (!blocked_.insert({&from, &to}).second) return;
  for (const ConnectionPtr& connection : connections_) {
    const bool concerned = (&connection->process(Connection::kDialler) == &from &&
                            &connection->process(Connection::kListener) == &to) ||
                           (&connection->process(Connection::kDialler) == &to &&
                            &connection->process(Connection::kListener) == &from);
    if (concerned) GiveUpIfBlocked(connection, loop_.now());
  }
}

void Network::GiveUpIfBlocked(const ConnectionPtr& connection, VirtualTime since) {
  loop_.At(since + kKeepalive, nullptr, [this, connection] {
    const Process& a = connection->process(Connection::kDialler);
    const Process& b = connection->process(Connection::kListener);
    if (blocked(a, b) || blocked(b, a)) Break(connection, "keepalive: no answer");
  });
}

void Network::Unblock(const Process& from, const Process& to) {
  if (blocked_.erase({&from, &to}) == 0) return;
  for (const ConnectionPtr& connection : connections_) {
    for (const auto end : {Connection::kDialler, Connection::kListener}) {
      auto& side = connection->sides_[end];
      if (side.process != &from || &connection->process(Connection::Other(end)) != &to) continue;
      auto held = std::exchange(side.held, {});
      for (const auto& message : held) connection->Deliver(end, message);
    }
  }
}

void Network::UnblockAll() {
  while (!blocked_.empty()) {
    const auto [from, to] = *blocked_.begin();
    Unblock(*from, *to);
  }
  slowness_.clear();
}

void Network::SetSlowness(const Process& a, const Process& b, double slowness) {
  slowness_[{&a, &b}] = slowness;
  slowness_[{&b, &a}] = slowness;
}

void Network::OnCrash(Process& process, bool silent) {
  for (const ConnectionPtr& connection : connections_) {
    for (const auto end : {Connection::kDialler, Connection::kListener}) {
      if (&connection->process(end) != &process || !connection->sides_[end].open) continue;
      connection->sides_[end].open = false;
      connection->sides_[end].handler = Connection::Handler();
      const auto other = Connection::Other(end);
      loop_.After(silent ? kKeepalive : kReset, nullptr, [this, connection, other] {
        Process& peer = connection->process(other);
        loop_.At(loop_.now(), &peer, [connection, other] {
          connection->Drop(other, absl::UnavailableError("the peer's process is gone"));
        });
      });
    }
  }
}

void Network::Break(const ConnectionPtr& connection, const std::string& why) {
  for (const auto end : {Connection::kDialler, Connection::kListener}) {
    connection->sides_[end].held.clear();
    loop_.After(kReset, &connection->process(end),
                [connection, end, why] { connection->Drop(end, absl::UnavailableError(why)); });
  }
}

void Network::Inject(const Process& from, const Process& to, ConnectionKind kind,
                     std::string bytes) {
  for (auto it = connections_.rbegin(); it != connections_.rend(); ++it) {
    const ConnectionPtr& connection = *it;
    if (connection->kind() != kind || !connection->open(Connection::kDialler) ||
        &connection->process(Connection::kDialler) != &from ||
        &connection->process(Connection::kListener) != &to) {
      continue;
    }
    return connection->Transmit(Connection::kDialler, {std::move(bytes), false, absl::OkStatus()},
                                absl::ZeroDuration(), /*in_order=*/true);
  }
}

std::vector<Network::ConnectionPtr> Network::ConnectionsOf(const Process& process) const {
  std::vector<ConnectionPtr> found;
  for (const ConnectionPtr& connection : connections_) {
    if (connection->open(Connection::kDialler) && connection->open(Connection::kListener) &&
        (&connection->process(Connection::kDialler) == &process ||
         &connection->process(Connection::kListener) == &process)) {
      found.push_back(connection);
    }
  }
  return found;
}

void Network::Forget() {
  std::erase_if(connections_, [](const ConnectionPtr& c) {
    return !c->open(Connection::kDialler) && !c->open(Connection::kListener);
  });
}

}  // namespace efedllm::faultsim
