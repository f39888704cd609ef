// Connections between simulated processes: streams of messages that take time, break, and are
// tampered with where the faults say so.
#ifndef EFEDLLM_FAULTSIM_NETWORK_H_
#define EFEDLLM_FAULTSIM_NETWORK_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/ids.h"
#include "common/random.h"
#include "faultsim/event_loop.h"

namespace efedllm::faultsim {

enum class ConnectionKind { kControl, kHop, kEcho, kKv };

// What becomes of one message.
struct MessageFate {
  absl::Duration delay;  // on top
  bool lost = false;
  bool twice = false;
  bool overtaken = false;  // those behind it need not wait for it
  bool corrupted = false;
  bool breaks = false;  // the connection, with this message
  absl::Duration echo;  // not zero: a copy comes so much later, by whatever stream there is then
  std::string ahead;    // not empty: an old message that comes ahead of this one
};

class Network;

// One connection, seen from both ends. Messages of a direction arrive in their order.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  enum End { kDialler = 0, kListener = 1 };
  struct Handler {
    std::function<void(const std::string&)> on_message;
    std::function<void(const absl::Status&)> on_close;  // not by Close at this end
  };

  ConnectionKind kind() const { return kind_; }
  Process& process(End end) const { return *sides_[end].process; }
  void set_handler(End end, Handler handler) { sides_[end].handler = std::move(handler); }

  // False: it is closed.
  bool Send(End from, std::string bytes);
  // The other end hears of it after what was sent before.
  void Close(End by, const absl::Status& why);
  bool open(End end) const { return sides_[end].open; }
  // Sent by this end and not yet delivered.
  size_t under_way(End from) const { return sides_[from].under_way; }

 private:
  friend class Network;
  struct Side {
    Process* process = nullptr;
    uint64_t life = 0;
    bool open = true;
    Handler handler;
    size_t under_way = 0;
    VirtualTime last_arrival = absl::ZeroDuration();
    struct Held {
      std::string bytes;
      bool close = false;
      absl::Status why;
    };
    std::deque<Held> held;  // from here, by a partition
  };
  static End Other(End end) { return end == kDialler ? kListener : kDialler; }
  bool Dead(End end) const {
    return !sides_[end].process->up || sides_[end].process->life != sides_[end].life;
  }
  void Transmit(End from, Side::Held message, absl::Duration delay, bool in_order);
  void Arrive(End from, Side::Held message);
  void Deliver(End from, const Side::Held& message);
  // The end hears that the connection is gone.
  void Drop(End end, const absl::Status& why);

  Connection(Network& network, ConnectionKind kind) : network_(network), kind_(kind) {}

  Network& network_;
  const ConnectionKind kind_;
  Side sides_[2];
};

class Network {
 public:
  using ConnectionPtr = std::shared_ptr<Connection>;
  // Takes what a process dials, and sets its handler; false: refused.
  using Acceptor = std::function<bool(const ConnectionPtr&)>;
  using OnMessage =
      std::function<MessageFate(const Connection&, Connection::End from, const std::string& bytes)>;

  Network(EventLoop& loop, Random& random) : loop_(loop), random_(random) {}

  // Asked of each message that is sent.
  void set_on_message(OnMessage on_message) { on_message_ = std::move(on_message); }
  void Listen(Process& process, Acceptor acceptor) { acceptors_[&process] = std::move(acceptor); }

  // Returns at once; messages may be sent at once. The handler is to be set by the caller.
  ConnectionPtr Dial(Process& from, Process& to, ConnectionKind kind);

  // Nothing gets from one to the other; what is sent meanwhile arrives when it is healed, unless
  // its connection gave up before.
  void Block(const Process& from, const Process& to);
  void Unblock(const Process& from, const Process& to);
  void UnblockAll();
  bool blocked(const Process& from, const Process& to) const {
    return blocked_.count({&from, &to}) > 0;
  }
  // 1: normal.
  void SetSlowness(const Process& a, const Process& b, double slowness);

  // By the stream of that kind that was opened last, if one is open.
  void Inject(const Process& from, const Process& to, ConnectionKind kind, std::string bytes);

  // The process is gone; silent: its machine too, so that nobody tells its peers.
  void OnCrash(Process& process, bool silent);
  // Breaks a connection for both ends.
  void Break(const ConnectionPtr& connection, const std::string& why);
  // Those that are open, of this process.
  std::vector<ConnectionPtr> ConnectionsOf(const Process& process) const;
  size_t connections() const { return connections_.size(); }

 private:
  friend class Connection;

  absl::Duration Delay(const Process& from, const Process& to, size_t bytes);
  void GiveUpIfBlocked(const ConnectionPtr& connection, VirtualTime since);
  void Forget();

  EventLoop& loop_;
  Random& random_;
  OnMessage on_message_;
  std::map<const Process*, Acceptor> acceptors_;
  using Way = std::pair<const Process*, const Process*>;
  // Where memory lies must not matter.
  struct ByNodes {
    bool operator()(const Way& a, const Way& b) const {
      return std::pair(a.first->node.v, a.second->node.v) <
             std::pair(b.first->node.v, b.second->node.v);
    }
  };
  std::set<Way, ByNodes> blocked_;
  std::map<Way, double, ByNodes> slowness_;
  std::vector<ConnectionPtr> connections_;
};

}  // namespace efedllm::faultsim

#endif  // EFEDLLM_FAULTSIM_NETWORK_H_
