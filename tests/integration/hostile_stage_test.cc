// A hop that brings frames late, twice, out of order, of an old epoch or as nonsense: the client
// must not notice, and nothing may be left behind.
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "integration/cluster_world.h"
#include "net/audit_call.h"
#include "net/hop.h"

namespace efedllm {
namespace {

constexpr uint32_t kTokens = 120;
constexpr size_t kMaxFrameBytes = 8 << 20;
constexpr absl::Duration kSendTimeout = absl::Seconds(5);

// Stands where a node takes its hops, and passes frames on to it as their senders would have: what
// an attacker in the node itself could do. Without TLS, where nodes only claim who they are.
class Middleman {
 public:
  // What is passed on for a frame, in order.
  using Meddle = std::function<std::vector<grpc::ByteBuffer>(const grpc::ByteBuffer&)>;

  explicit Middleman(std::string target) : target_(std::move(target)) {
    grpc::ServerBuilder builder;
    ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:0", transport_.server_credentials(), &port_);
    receiver_.Register(builder);
    rows_.Register(builder);
    server_ = builder.BuildAndStart();
  }
  ~Middleman() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    receiver_.Shutdown();
    server_->Shutdown();
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  // Frames for node from now on, of any of these; and what the coordinator asks it for.
  void Start(NodeId node, std::vector<NodeId> upstreams) {
    node_ = node;
    rows_.SetHandler([this](const grpc::ByteBuffer& request) {
      return AuditCaller(coordinator_, target_, node_, AuditMethod::kRows)
          .Ask(request, kSendTimeout);
    });
    receiver_.SetUpstreams(std::move(upstreams));
    thread_ = std::thread([this] { Loop(); });
  }
  // One frame, `after` so many others.
  void MeddleOnce(size_t after, Meddle meddle) {
    absl::MutexLock lock(&mu_);
    after_ = after;
    meddle_ = std::move(meddle);
  }
  bool meddled() const {
    absl::MutexLock lock(&mu_);
    return meddle_ == nullptr;
  }

 private:
  struct Edge {
    explicit Edge(NodeId peer) : transport(Transport::Insecure(peer)) {}
    Transport transport;
    std::unique_ptr<HopSender> sender;
  };

  void Loop() {
    while (!stop_) {
      const std::optional<HopFrame> frame = receiver_.Next(absl::Milliseconds(10));
      if (!frame) continue;
      for (const grpc::ByteBuffer& bytes : Meddled(frame->bytes)) PassOn(frame->peer, bytes);
    }
  }
  std::vector<grpc::ByteBuffer> Meddled(const grpc::ByteBuffer& bytes) {
    Meddle meddle;
    {
      absl::MutexLock lock(&mu_);
      if (meddle_ == nullptr || after_-- > 0) return {bytes};
      meddle = std::exchange(meddle_, nullptr);
    }
    return meddle(bytes);
  }
  void PassOn(NodeId peer, const grpc::ByteBuffer& bytes) {
    Edge& edge = edges_.try_emplace(peer, peer).first->second;
    for (int tries = 0; tries < 2; ++tries) {
      if (!edge.sender) edge.sender = HopSender::Open(edge.transport, target_, node_);
      if (edge.sender->Send(bytes, kSendTimeout).ok()) return;
      edge.sender = nullptr;  // of an earlier epoch
    }
  }

  const std::string target_;
  const Transport transport_ = Transport::Insecure(NodeId{0xabc});
  const Transport coordinator_ = Transport::Insecure(kCoordinatorNode);
  HopReceiver receiver_{transport_, kMaxFrameBytes};
  AuditServer rows_{transport_, AuditMethod::kRows};
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  NodeId node_;
  std::map<NodeId, Edge> edges_;  // of the thread

  mutable absl::Mutex mu_;
  size_t after_ ABSL_GUARDED_BY(mu_) = 0;
  Meddle meddle_ ABSL_GUARDED_BY(mu_);

  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

int FreePort() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {}, .sin_zero = {}};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(bind(listener, generic, size), 0);
  EXPECT_EQ(getsockname(listener, generic, &size), 0);
  close(listener);
  return ntohs(address.sin_port);
}

class HostileStage : public testing::Test {
 protected:
  void SetUp() override {
    const NodeId first = world_.Join(Insecure).node();
    const NodeId second = world_
                              .Join([this](WorkerOptions& options) {
                                Insecure(options);
                                options.listen = target_;
                                options.advertise = middleman_.address();
                              })
                              .node();
    middleman_.Start(second, {kCoordinatorNode, first});
    ASSERT_TRUE(world_.AwaitServing(2));
    for (const std::vector<int32_t>& prompt : prompts_) {
      expected_.push_back(world_.Generate(prompt, kTokens).tokens);
      ASSERT_EQ(expected_.back().size(), kTokens);
    }
  }

  static void Insecure(WorkerOptions& options) {
    options.insecure = true;
    options.token = std::nullopt;
  }

  // Several requests at once, one frame of which is meddled with; all must be as if it had not
  // been.
  void ExpectNoHarm(Middleman::Meddle meddle) {
    middleman_.MeddleOnce(15, std::move(meddle));
    std::vector<std::shared_ptr<Generation>> generations;
    for (const auto& prompt : prompts_) generations.push_back(world_.Submit(prompt, kTokens));
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const Generated generated = world_.Collect(*generations[i]);
      EXPECT_TRUE(generated.status.ok()) << generated.status;
      EXPECT_EQ(generated.tokens, expected_[i]);
    }
    EXPECT_TRUE(middleman_.meddled());
    EXPECT_TRUE(world_.AwaitStatus([this](const ClusterStatus&) {
      const SchedulerStats stats = world_.coordinator().scheduler().Stats();
      return stats.running == 0 && stats.queued == 0 && stats.kv_tokens_held == 0;
    }));
    EXPECT_TRUE(world_.AwaitServing(2));
  }

  const std::string target_ = absl::StrCat("127.0.0.1:", FreePort());
  ClusterWorld world_{kSeedlingPath, 2,
                      [](CoordinatorOptions& options) { options.insecure = true; }};
  Middleman middleman_{target_};
  const std::vector<std::vector<int32_t>> prompts_ = {
      SeedlingTokens("Once upon a time there was a fox named Milo."),
      SeedlingTokens("Once there was a shy owl"), SeedlingTokens("27 + 48 = "),
      SeedlingTokens("A small bear went to the river")};
  std::vector<std::vector<int32_t>> expected_;
};

TEST_F(HostileStage, AFrameThatComesLate) {
  ExpectNoHarm([](const grpc::ByteBuffer& frame) {
    absl::SleepFor(absl::Milliseconds(700));
    return std::vector<grpc::ByteBuffer>{frame};
  });
  EXPECT_EQ(world_.coordinator().cluster_status().epoch, Epoch{1}) << "late is not lost";
}

TEST_F(HostileStage, AFrameThatComesTwice) {
  ExpectNoHarm([](const grpc::ByteBuffer& frame) {
    return std::vector<grpc::ByteBuffer>{frame, frame};
  });
}

TEST_F(HostileStage, AFrameThatNeverComes) {
  ExpectNoHarm([](const grpc::ByteBuffer&) { return std::vector<grpc::ByteBuffer>(); });
}

TEST_F(HostileStage, AFrameOfAnEpochThatIsOver) {
  grpc::ByteBuffer old;
  ExpectNoHarm([&](const grpc::ByteBuffer& frame) {
    old = frame;
    return std::vector<grpc::ByteBuffer>{frame, frame};  // ends the epoch
  });
  const Epoch epoch = world_.coordinator().cluster_status().epoch;
  EXPECT_GT(epoch, Epoch{1});
  ExpectNoHarm([&](const grpc::ByteBuffer& frame) {
    return std::vector<grpc::ByteBuffer>{old, frame};
  });
  EXPECT_EQ(world_.coordinator().cluster_status().epoch, epoch) << "it is ignored";
}

TEST_F(HostileStage, AFrameOfNonsense) {
  ExpectNoHarm([](const grpc::ByteBuffer&) {
    const grpc::Slice nonsense(std::string(1000, '\xff'));
    return std::vector<grpc::ByteBuffer>{grpc::ByteBuffer(&nonsense, 1)};
  });
}

TEST_F(HostileStage, FramesOutOfOrder) {
  // The first of two is held back; it comes behind the next one.
  grpc::ByteBuffer held;
  middleman_.MeddleOnce(15, [&](const grpc::ByteBuffer& frame) {
    held = frame;
    middleman_.MeddleOnce(0, [&](const grpc::ByteBuffer& next) {
      return std::vector<grpc::ByteBuffer>{next, held};
    });
    return std::vector<grpc::ByteBuffer>();
  });
  std::vector<std::shared_ptr<Generation>> generations;
  for (const auto& prompt : prompts_) generations.push_back(world_.Submit(prompt, kTokens));
  for (size_t i = 0; i < prompts_.size(); ++i) {
    EXPECT_EQ(world_.Collect(*generations[i]).tokens, expected_[i]);
  }
  EXPECT_TRUE(middleman_.meddled());
}

}  // namespace
}  // namespace efedllm
