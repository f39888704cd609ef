#include "simulator/compute_servers.h"

#include <algorithm>
#include <utility>

namespace efedllm {

ComputeServers::ComputeServers(const std::vector<SimHost>& hosts, Started started)
    : started_(std::move(started)) {
  for (const SimHost& host : hosts) hosts_.push_back({host.cores, host.cores, {}});
}

size_t ComputeServers::Add(const SimNode& node) {
  Server server;
  server.host = node.host;
  server.threads = std::max<uint32_t>(node.profile.threads, 1);
  if (node.host) server.threads = std::min(server.threads, hosts_[*node.host].cores);
  servers_.push_back(std::move(server));
  return servers_.size() - 1;
}

void ComputeServers::Push(size_t server, uint32_t job, double seconds, double now) {
  servers_[server].jobs.push_back({job, seconds});
  TryStart(server, now);
}

void ComputeServers::TryStart(size_t index, double now) {
  Server& server = servers_[index];
  if (server.running || server.wants_cores || server.jobs.empty()) return;
  if (server.host) {
    Host& host = hosts_[*server.host];
    if (host.free < server.threads || !host.waiting.empty()) {
      server.wants_cores = true;
      host.waiting.push_back(index);
      return;
    }
    host.free -= server.threads;
  }
  Start(index, now);
}

void ComputeServers::Start(size_t index, double now) {
  Server& server = servers_[index];
  const Job job = server.jobs.front();
  server.jobs.pop_front();
  server.running = true;
  server.busy_seconds += job.seconds;
  started_(index, job.job, now + job.seconds);
}

void ComputeServers::End(size_t index, double now) {
  Server& server = servers_[index];
  server.running = false;
  if (!server.host) return TryStart(index, now);
  Host& host = hosts_[*server.host];
  host.free += server.threads;
  // Behind those that wait already.
  if (!server.jobs.empty()) {
    server.wants_cores = true;
    host.waiting.push_back(index);
  }
  while (!host.waiting.empty() && host.free >= servers_[host.waiting.front()].threads) {
    const size_t next = host.waiting.front();
    host.waiting.pop_front();
    servers_[next].wants_cores = false;
    host.free -= servers_[next].threads;
    Start(next, now);
  }
}

}  // namespace efedllm
