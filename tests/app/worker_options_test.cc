#include "app/worker_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>

namespace efedllm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const char kToken[] = "efl1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAA";

WorkerFlags Flags() {
  WorkerFlags flags;
  flags.join = "server:7070";
  flags.token = kToken;
  return flags;
}

WorkerMachine Machine() {
  WorkerMachine machine;
  machine.user.home = "/home/ann";
  machine.host_name = "desk-7";
  machine.available_cpus = 6;
  return machine;
}

absl::Status Refusal(const WorkerFlags& flags) {
  return CheckWorkerFlags(flags, Machine()).status();
}

TEST(WorkerOptions, DefaultsComeFromTheMachine) {
  const auto options = CheckWorkerFlags(Flags(), Machine());
  ASSERT_TRUE(options.ok()) << options.status();
  const WorkerOptions& worker = options->worker;
  EXPECT_EQ(worker.coordinator, "server:7070");
  EXPECT_TRUE(worker.token.has_value());
  EXPECT_EQ(worker.state_dir, "/home/ann/.local/state/efedllm/worker");
  EXPECT_EQ(worker.name, "desk-7");
  EXPECT_EQ(worker.threads, 6);
  EXPECT_EQ(worker.memory_bytes, 0u);
  EXPECT_EQ(worker.listen, "0.0.0.0:0");
  EXPECT_FALSE(worker.insecure);
}

TEST(WorkerOptions, StateLiesWhereSystemsKeepIt) {
  WorkerMachine machine = Machine();
  machine.user.xdg_state_home = "/x";
  EXPECT_EQ(CheckWorkerFlags(Flags(), machine)->worker.state_dir, "/x/efedllm/worker");
  machine.user.root = true;
  EXPECT_EQ(CheckWorkerFlags(Flags(), machine)->worker.state_dir, "/var/lib/efedllm/worker");
  machine = WorkerMachine();
  EXPECT_THAT(std::string(CheckWorkerFlags(Flags(), machine).status().message()),
              HasSubstr("--state-dir"));
}

TEST(WorkerOptions, TheTokenMayComeFromTheEnvironmentAndIsNeverRepeated) {
  WorkerFlags flags = Flags();
  flags.token.clear();
  WorkerMachine machine = Machine();
  EXPECT_FALSE(CheckWorkerFlags(flags, machine)->worker.token.has_value());
  machine.token = kToken;
  EXPECT_TRUE(CheckWorkerFlags(flags, machine)->worker.token.has_value());
  flags.token = "efl1.secret-but-wrong";
  const std::string message(Refusal(flags).message());
  EXPECT_THAT(message, HasSubstr("--token"));
  EXPECT_THAT(message, Not(HasSubstr("secret-but-wrong")));
}

TEST(WorkerOptions, InsecureStaysOnThisMachine) {
  WorkerFlags flags = Flags();
  flags.insecure = true;
  EXPECT_THAT(std::string(Refusal(flags).message()), HasSubstr("--join"));
  flags.join = "127.0.0.1:7070";
  const auto options = CheckWorkerFlags(flags, Machine());
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->worker.listen, "127.0.0.1:0");
  EXPECT_FALSE(options->worker.token.has_value());
  flags.listen = "0.0.0.0:0";
  EXPECT_THAT(std::string(Refusal(flags).message()), HasSubstr("--listen"));
}

TEST(WorkerOptions, WrongValuesNameTheirFlag) {
  const std::vector<std::pair<const char*, std::function<void(WorkerFlags&)>>> cases = {
      {"--join", [](WorkerFlags& f) { f.join = "server"; }},
      {"--join", [](WorkerFlags& f) { f.join = "server:0"; }},
      {"--join", [](WorkerFlags& f) { f.join = "server:70700"; }},
      {"--listen", [](WorkerFlags& f) { f.listen = "nowhere"; }},
      {"--retry-for", [](WorkerFlags& f) { f.retry_for = "a while"; }},
      {"--retry-for", [](WorkerFlags& f) { f.retry_for = "0"; }},
      {"--advertise", [](WorkerFlags& f) { f.advertise = "host:0"; }},
      {"--advertise", [](WorkerFlags& f) { f.advertise = "a:b:c"; }},
      {"--threads", [](WorkerFlags& f) { f.threads = -1; }},
      {"--threads", [](WorkerFlags& f) { f.threads = 5000; }},
      {"--memory", [](WorkerFlags& f) { f.memory = "much"; }},
      {"--memory", [](WorkerFlags& f) { f.memory = "-1"; }},
      {"--memory", [](WorkerFlags& f) { f.memory = "257T"; }},
      {"--audit-memory", [](WorkerFlags& f) { f.audit_memory = "some"; }},
      {"--audit-disk", [](WorkerFlags& f) { f.audit_disk = "257T"; }},
      {"--name", [](WorkerFlags& f) { f.name = "a\nb"; }},
      {"--name", [](WorkerFlags& f) { f.name = std::string(65, 'x'); }},
  };
  for (const auto& [flag, change] : cases) {
    WorkerFlags flags = Flags();
    change(flags);
    const absl::Status status = Refusal(flags);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << flag;
    EXPECT_THAT(std::string(status.message()), HasSubstr(flag));
  }
}

TEST(WorkerOptions, AdvertiseTakesAHostWithOrWithoutAPort) {
  for (const char* advertise : {"10.0.0.7", "10.0.0.7:7071", "desk-7.local", "[fe80::1]"}) {
    WorkerFlags flags = Flags();
    flags.advertise = advertise;
    EXPECT_TRUE(Refusal(flags).ok()) << advertise;
  }
}

TEST(WorkerOptions, AMachineWithoutANameIsNoProblem) {
  WorkerMachine machine = Machine();
  machine.host_name = std::string(300, 'h');
  const auto options = CheckWorkerFlags(Flags(), machine);
  ASSERT_TRUE(options.ok());
  EXPECT_LE(options->worker.name.size(), 64u);
  machine.host_name.clear();
  EXPECT_TRUE(CheckWorkerFlags(Flags(), machine).ok());
}

TEST(WorkerOptions, ReadsAConfigFile) {
  const std::string path = ::testing::TempDir() + "/worker_options_test.toml";
  {
    std::ofstream file(path);
    file << "join = \"server:7070\"\nthreads = 3\nmemory = \"2GiB\"\n";
  }
  CLI::App app;
  WorkerFlags flags;
  AddWorkerFlags(app, flags);
  app.parse("--config " + path + " --threads 4");
  EXPECT_EQ(flags.join, "server:7070");
  EXPECT_EQ(flags.threads, 4);
  EXPECT_EQ(flags.memory, "2GiB");
}

}  // namespace
}  // namespace efedllm
