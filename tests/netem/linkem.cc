// linkem: emulates slow links between network namespaces in user space, for kernels without netem.
//
//   linkem [--rate MBIT] [--delay MICROS] [--held] [--queue BYTES] [--mtu BYTES] [--offload]
//   [--control FIFO] NETNS...
//
// Node k (from 1) gets 10.77.0.k/24 on the device em0 in the k-th network namespace, which must
// exist. Every node has its own egress link: serialisation at the rate, FIFO, tail drop; and then a
// constant one-way delay to any other node. With --held rate and delay begin at SIGUSR1. Lines in
// the FIFO cut links: "cut A B" drops what node A sends to node B, "join A B" no longer; A or B may
// be "all". Runs until SIGTERM or SIGINT and then prints what it carried; "ready" on stdout says
// that the links are up. Needs root, /dev/net/tun and ip.
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::nanoseconds;

constexpr size_t kVnetHeaderBytes = 10;  // before each packet, where offloading is described
constexpr size_t kMinIpBytes = 20;
constexpr size_t kMaxReadBytes = 70'000;
constexpr size_t kTcpIpHeaderBytes = 52;  // of each segment that an offloaded packet stands for
constexpr size_t kEthernetBytes = 38;     // framing, preamble and gap
constexpr size_t kMaxQueuedPackets = 16'384;
constexpr int kReadsInARow = 64;
constexpr uint8_t kSubnet[] = {10, 77, 0};

struct Options {
  double rate_mbit = 0;  // 0: unlimited
  int64_t delay_micros = 0;
  size_t queue_bytes = 4u << 20;
  size_t mtu = 1500;
  bool held = false;
  std::string control;   // a FIFO; empty: links are never cut
  bool offload = false;  // the kernels hand over TCP packets of up to 64 KiB: cheap, for fast links
  std::vector<std::string> namespaces;
};

struct Packet {
  Clock::time_point arrives;
  size_t to;
  std::vector<uint8_t> bytes;
};

struct Node {
  int tun = -1;
  std::deque<Packet> in_flight;
  size_t queued_bytes = 0;
  Clock::time_point idle_at;  // when the link has sent all that it took
  uint64_t packets = 0, bytes = 0, dropped = 0;
};

volatile std::sig_atomic_t stopping = 0;
volatile std::sig_atomic_t held = 0;

void Check(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what + ": " + std::strerror(errno));
}

void Run(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
}

// The TUN device em0 inside the namespace, its address set.
int OpenTun(const std::string& netns, size_t number, int own_netns, const Options& options) {
  const std::string path = "/run/netns/" + netns;
  const int target = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  Check(target >= 0, "open " + path);
  Check(setns(target, CLONE_NEWNET) == 0, "setns " + netns);
  close(target);
  const int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  Check(tun >= 0, "open /dev/net/tun");
  ifreq request = {};
  std::strcpy(request.ifr_name, "em0");
  request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  Check(ioctl(tun, TUNSETIFF, &request) == 0, "TUNSETIFF");
  int header = kVnetHeaderBytes;
  Check(ioctl(tun, TUNSETVNETHDRSZ, &header) == 0, "TUNSETVNETHDRSZ");
  Check(ioctl(tun, TUNSETOFFLOAD, options.offload ? TUN_F_CSUM | TUN_F_TSO4 : 0) == 0,
        "TUNSETOFFLOAD");
  Check(setns(own_netns, CLONE_NEWNET) == 0, "setns back");
  const std::string ip = "ip -n " + netns + " ";
  Run(ip + "link set lo up");
  Run(ip + "addr add 10.77.0." + std::to_string(number) + "/24 dev em0");
  Run(ip + "link set em0 up mtu " + std::to_string(options.mtu) + " txqueuelen 1000");
  return tun;
}

class Emulator {
 public:
  explicit Emulator(const Options& options)
      : options_(options),
        nodes_(options.namespaces.size()),
        cut_(nodes_.size(), std::vector<bool>(nodes_.size())) {
    const int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    Check(own >= 0, "open /proc/self/ns/net");
    for (size_t i = 0; i < nodes_.size(); ++i) {
      nodes_[i].tun = OpenTun(options.namespaces[i], i + 1, own, options);
    }
    close(own);
    if (options.control.empty()) return;
    // For writing too: then it has no end while nobody else writes.
    control_ = open(options.control.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    Check(control_ >= 0, "open " + options.control);
  }

  void Loop() {
    std::vector<pollfd> polled(nodes_.size() + 1);
    while (stopping == 0) {
      const nanoseconds wait = Deliver();
      for (size_t i = 0; i < nodes_.size(); ++i) polled[i] = {nodes_[i].tun, POLLIN, 0};
      polled.back() = {control_, POLLIN, 0};
      const timespec timeout = {wait.count() / 1'000'000'000, wait.count() % 1'000'000'000};
      if (ppoll(polled.data(), polled.size(), &timeout, nullptr) <= 0) continue;
      for (size_t i = 0; i < nodes_.size(); ++i) {
        if ((polled[i].revents & POLLIN) != 0) TakeFrom(i);
      }
      if ((polled.back().revents & POLLIN) != 0) ReadControl();
    }
  }

  void Print() const {
    for (size_t i = 0; i < nodes_.size(); ++i) {
      std::fprintf(stderr, "node %zu sent %llu packets, %llu bytes; %llu were dropped\n", i + 1,
                   static_cast<unsigned long long>(nodes_[i].packets),
                   static_cast<unsigned long long>(nodes_[i].bytes),
                   static_cast<unsigned long long>(nodes_[i].dropped));
    }
  }

 private:
  // What has arrived by now; how long until the next does.
  nanoseconds Deliver() {
    const Clock::time_point now = Clock::now();
    Clock::time_point next = now + std::chrono::milliseconds(200);
    for (Node& node : nodes_) {
      while (!node.in_flight.empty() && node.in_flight.front().arrives <= now) {
        const Packet& packet = node.in_flight.front();
        if (write(nodes_[packet.to].tun, packet.bytes.data(), packet.bytes.size()) < 0) {
          ++node.dropped;
        }
        node.queued_bytes -= packet.bytes.size();
        node.in_flight.pop_front();
      }
      if (!node.in_flight.empty()) next = std::min(next, node.in_flight.front().arrives);
    }
    return std::max(nanoseconds(0), nanoseconds(next - Clock::now()));
  }

  void ReadControl() {
    std::array<char, 4096> text;
    const ssize_t size = read(control_, text.data(), text.size());
    if (size > 0) commands_.append(text.data(), static_cast<size_t>(size));
    for (size_t end = 0; (end = commands_.find('\n')) != std::string::npos;) {
      std::istringstream words(commands_.substr(0, end));
      commands_.erase(0, end + 1);
      std::string verb, from, to;
      words >> verb >> from >> to;
      for (const size_t a : Chosen(from)) {
        for (const size_t b : Chosen(to)) cut_[a][b] = verb == "cut";
      }
    }
  }

  // The nodes that a command means: one by its number, or all.
  std::vector<size_t> Chosen(const std::string& word) const {
    std::vector<size_t> nodes;
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (word == "all" || word == std::to_string(i + 1)) nodes.push_back(i);
    }
    return nodes;
  }

  void TakeFrom(size_t from) {
    for (int i = 0; i < kReadsInARow; ++i) {
      const ssize_t size = read(nodes_[from].tun, buffer_.data(), buffer_.size());
      if (size <= static_cast<ssize_t>(kVnetHeaderBytes + kMinIpBytes)) return;
      Send(from, static_cast<size_t>(size));
    }
  }

  // Puts the packet in buffer_ on its link.
  void Send(size_t from, size_t size) {
    const uint8_t* ip = buffer_.data() + kVnetHeaderBytes;
    const uint8_t* destination = ip + 16;
    if (ip[0] >> 4 != 4 || std::memcmp(destination, kSubnet, sizeof(kSubnet)) != 0) return;
    const size_t to = size_t{destination[3]} - 1;
    if (to >= nodes_.size() || to == from) return;
    Node& node = nodes_[from];
    const size_t payload = size - kVnetHeaderBytes;
    const size_t segments = (payload + options_.mtu - 1) / options_.mtu;
    node.packets += segments;
    node.bytes += payload;
    if (cut_[from][to] || node.queued_bytes + size > options_.queue_bytes ||
        node.in_flight.size() >= kMaxQueuedPackets) {
      ++node.dropped;
      return;
    }
    const size_t on_wire = payload + (segments - 1) * kTcpIpHeaderBytes + segments * kEthernetBytes;
    const Clock::time_point begins = std::max(node.idle_at, Clock::now());
    node.idle_at = begins;
    if (options_.rate_mbit > 0 && held == 0) {
      node.idle_at += nanoseconds(
          static_cast<int64_t>(static_cast<double>(on_wire) * 8e3 / options_.rate_mbit));
    }
    node.in_flight.push_back({node.idle_at + microseconds(held == 0 ? options_.delay_micros : 0),
                              to,
                              {buffer_.data(), buffer_.data() + size}});
    node.queued_bytes += size;
  }

  const Options options_;
  std::vector<Node> nodes_;
  std::vector<std::vector<bool>> cut_;  // by sender and receiver
  int control_ = -1;
  std::string commands_;  // read and not yet a line
  std::array<uint8_t, kMaxReadBytes> buffer_;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Emulates slow links between network namespaces.");
  app.add_option("--rate", options.rate_mbit, "Mbit/s of each node's link; 0: unlimited")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--delay", options.delay_micros, "one way, in microseconds")
      ->check(CLI::Range(0, 10'000'000));
  app.add_flag("--held", options.held, "be fast until SIGUSR1");
  app.add_option("--queue", options.queue_bytes, "bytes that wait before a link, beyond: dropped");
  app.add_option("--mtu", options.mtu)->check(CLI::Range(576, 9000));
  app.add_option("--control", options.control, "a FIFO with commands that cut links")
      ->check(CLI::ExistingPath);
  app.add_flag("--offload", options.offload, "take packets of up to 64 KiB, for 1 Gbit/s and more");
  app.add_option("netns", options.namespaces)->required()->expected(2, 250);
  CLI11_PARSE(app, argc, argv);
  prctl(PR_SET_TIMERSLACK, 1);
  struct sigaction stop = {};
  stop.sa_handler = [](int) { stopping = 1; };
  sigaction(SIGTERM, &stop, nullptr);
  sigaction(SIGINT, &stop, nullptr);
  held = options.held ? 1 : 0;
  struct sigaction release = {};
  release.sa_handler = [](int) { held = 0; };
  sigaction(SIGUSR1, &release, nullptr);
  try {
    Emulator emulator(options);
    std::puts("ready");
    std::fflush(stdout);
    emulator.Loop();
    emulator.Print();
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "linkem: %s\n", failure.what());
    return 1;
  }
  return 0;
}
