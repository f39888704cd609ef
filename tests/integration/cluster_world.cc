#include "integration/cluster_world.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/model_file.h"
#include "net/join_token.h"
#include "text/tokenizer.h"

namespace efedllm {

ClusterWorld::ClusterWorld(const std::string& model, size_t min_workers,
                           const CoordinatorTweak& tweak) {
  spdlog::set_level(spdlog::level::warn);
  std::string pattern = testing::TempDir() + "/efedllm-world-XXXXXX";
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  dir_ = pattern;
  options_.model = model;
  options_.state_dir = dir_ + "/coordinator";
  options_.listen = options_.http = "127.0.0.1:0";
  options_.own.threads = 1;
  options_.own.memory_bytes = uint64_t{1} << 30;
  options_.rules.min_workers = min_workers;
  options_.rules.heartbeat = absl::Milliseconds(500);
  if (tweak) tweak(options_);
  auto coordinator = Coordinator::Start(options_, clock_);
  EXPECT_TRUE(coordinator.ok()) << coordinator.status();
  if (!coordinator.ok()) std::abort();
  coordinator_ = *std::move(coordinator);
}

ClusterWorld::~ClusterWorld() {
  for (auto& worker : workers_) worker->Stop();
  workers_.clear();
  while (!processes_.empty()) Kill(processes_.back(), SIGKILL);
  coordinator_.reset();
  std::filesystem::remove_all(dir_);
}

std::string ClusterWorld::join_address() const {
  return absl::StrCat("127.0.0.1:", coordinator_->listen_port());
}

Worker& ClusterWorld::Join(const WorkerTweak& tweak) {
  WorkerOptions options;
  options.coordinator = join_address();
  options.token = ParseJoinToken(coordinator_->join_token()).value();
  options.name = absl::StrCat("worker-", next_worker_);
  options.state_dir = absl::StrCat(dir_, "/", options.name);
  options.listen = "127.0.0.1:0";
  options.memory_bytes = uint64_t{1} << 30;
  options.profile = NodeProfile{1, options.memory_bytes, 1e9, 1e9, 1e9};
  options.least_backoff = absl::Milliseconds(50);
  if (tweak) tweak(options);
  ++next_worker_;
  auto worker = Worker::Create(options, clock_);
  EXPECT_TRUE(worker.ok()) << worker.status();
  if (!worker.ok()) std::abort();
  workers_.push_back(*std::move(worker));
  workers_.back()->Start();
  return *workers_.back();
}

pid_t ClusterWorld::Spawn() {
  const std::string binary =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "efedllm-worker";
  const std::string name = absl::StrCat("worker-", next_worker_++);
  std::vector<std::string> words = {binary,
                                    "--join",
                                    join_address(),
                                    "--token",
                                    coordinator_->join_token(),
                                    "--state-dir",
                                    absl::StrCat(dir_, "/", name),
                                    "--name",
                                    name,
                                    "--listen",
                                    "127.0.0.1:0",
                                    "--memory",
                                    "1GiB",
                                    "--threads",
                                    "1",
                                    "--log-level",
                                    "off"};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, binary.c_str(), nullptr, nullptr, arguments.data(), environ), 0);
  processes_.push_back(pid);
  return pid;
}

void ClusterWorld::Kill(pid_t worker, int signal) {
  ::kill(worker, signal);
  if (signal == SIGSTOP || signal == SIGCONT) return;
  waitpid(worker, nullptr, 0);
  std::erase(processes_, worker);
}

void ClusterWorld::Leave(size_t i) {
  workers_[i]->Stop();
  workers_.erase(workers_.begin() + static_cast<ptrdiff_t>(i));
}

void ClusterWorld::RestartCoordinator(const std::function<void()>& between) {
  options_.listen = absl::StrCat("127.0.0.1:", coordinator_->listen_port());
  coordinator_.reset();
  if (between) between();
  auto coordinator = Coordinator::Start(options_, clock_);
  ASSERT_TRUE(coordinator.ok()) << coordinator.status();
  coordinator_ = *std::move(coordinator);
}

bool ClusterWorld::Await(const std::function<bool()>& condition, absl::Duration timeout) {
  const absl::Time until = absl::Now() + timeout;
  while (absl::Now() < until) {
    if (condition()) return true;
    absl::SleepFor(absl::Milliseconds(10));
  }
  const ClusterStatus status = coordinator_->cluster_status();
  ADD_FAILURE() << "timed out; the cluster is " << status.state << ": " << status.reason;
  return false;
}

bool ClusterWorld::AwaitServing(size_t stages, absl::Duration timeout) {
  return Await(
      [&] {
        const ClusterStatus status = coordinator_->cluster_status();
        const auto staged = std::count_if(
            status.members.begin(), status.members.end(),
            [](const Member& member) { return member.state() == MemberState::kReady; });
        return status.state == "serving" && static_cast<size_t>(staged) == stages &&
               coordinator_->scheduler().MaxPositions().ok();
      },
      timeout);
}

bool ClusterWorld::AwaitStatus(const std::function<bool(const ClusterStatus&)>& matches,
                               absl::Duration timeout) {
  return Await([&] { return matches(coordinator_->cluster_status()); }, timeout);
}

bool ClusterWorld::AwaitReason(const std::string& text, absl::Duration timeout) {
  return AwaitStatus(
      [&](const ClusterStatus& status) { return absl::StrContains(status.reason, text); }, timeout);
}

std::shared_ptr<Generation> ClusterWorld::Submit(const std::vector<int32_t>& prompt,
                                                 uint32_t max_tokens) {
  GenerationInput input;
  input.prompt = prompt;
  input.max_tokens = max_tokens;
  input.sampling.temperature = 0;
  input.ignore_eos = true;
  auto generation = coordinator_->scheduler().Submit({input});
  EXPECT_TRUE(generation.ok()) << generation.status();
  return generation.ok() ? *std::move(generation) : nullptr;
}

Generated ClusterWorld::Collect(Generation& generation) {
  Generated generated;
  const absl::Time until = absl::Now() + absl::Seconds(120);
  while (!generation.done()) {
    const std::optional<GenerationEvent> event = generation.Next(until - absl::Now());
    if (!event) {
      generated.status = absl::DeadlineExceededError("no event came");
      break;
    }
    if (event->token) generated.tokens.push_back(event->token->token);
    generated.text += event->text;
    if (!event->status.ok()) generated.status = event->status;
  }
  return generated;
}

Generated ClusterWorld::Generate(const std::vector<int32_t>& prompt, uint32_t max_tokens) {
  const std::shared_ptr<Generation> generation = Submit(prompt, max_tokens);
  if (generation == nullptr) return {};
  return Collect(*generation);
}

std::vector<int32_t> SeedlingTokens(const std::string& text) {
  const ModelFile file = ModelFile::Open(kSeedlingPath).value();
  return Tokenizer::Create(file).value()->Encode(text, TokenizeOptions());
}

}  // namespace efedllm
