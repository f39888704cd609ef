// Who computes: stages and the coordinator, each one step at a time, and not more threads at once
// than a shared machine has cores.
#ifndef EFEDLLM_SIMULATOR_COMPUTE_SERVERS_H_
#define EFEDLLM_SIMULATOR_COMPUTE_SERVERS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

#include "simulator/sim_spec.h"

namespace efedllm {

class ComputeServers {
 public:
  // Called when a job begins: its server and its end.
  using Started = std::function<void(size_t server, uint32_t job, double end)>;

  ComputeServers(const std::vector<SimHost>& hosts, Started started);

  // Returns the new server's number. node is borrowed.
  size_t Add(const SimNode& node);
  // The job begins at once or waits its turn.
  void Push(size_t server, uint32_t job, double seconds, double now);
  // The server's present job has ended; whoever waits begins.
  void End(size_t server, double now);

  bool idle(size_t server) const {
    return !servers_[server].running && servers_[server].jobs.empty();
  }
  size_t size() const { return servers_.size(); }
  double busy_seconds(size_t server) const { return servers_[server].busy_seconds; }

 private:
  struct Job {
    uint32_t job = 0;
    double seconds = 0;
  };
  struct Server {
    std::optional<size_t> host;
    uint32_t threads = 1;
    bool running = false;
    bool wants_cores = false;  // stands in its host's queue
    std::deque<Job> jobs;
    double busy_seconds = 0;
  };
  struct Host {
    uint32_t cores = 0;
    uint32_t free = 0;
    std::deque<size_t> waiting;  // servers, first come first served
  };

  void TryStart(size_t server, double now);
  void Start(size_t server, double now);

  Started started_;
  std::vector<Server> servers_;
  std::vector<Host> hosts_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SIMULATOR_COMPUTE_SERVERS_H_
