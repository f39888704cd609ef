#include "app/coord_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

CoordFlags Flags() {
  CoordFlags flags;
  flags.model = "model.gguf";
  return flags;
}

CoordMachine Machine() {
  CoordMachine machine;
  machine.user.home = "/home/ann";
  machine.available_memory_bytes = 1000;
  machine.available_cpus = 4;
  return machine;
}

void ExpectRefused(const CoordFlags& flags, const std::string& why) {
  const absl::Status status = CheckCoordFlags(flags, Machine()).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(why));
}

TEST(CoordOptions, HasUsefulDefaults) {
  const CoordOptions options = CheckCoordFlags(Flags(), Machine()).value();
  EXPECT_EQ(options.coordinator.listen, "0.0.0.0:7070");
  EXPECT_EQ(options.coordinator.http, "127.0.0.1:8080");
  EXPECT_EQ(options.coordinator.own.threads, 4u);
  EXPECT_EQ(options.coordinator.own.memory_bytes, 800u);
  EXPECT_EQ(options.coordinator.codec.name(), "lossless");
  EXPECT_EQ(options.coordinator.state_dir, "/home/ann/.local/state/efedllm/coordinator");
}

TEST(CoordOptions, FindsItsStateDirByUserAndEnvironment) {
  CoordMachine machine = Machine();
  machine.user.xdg_state_home = "/x";
  EXPECT_EQ(DefaultStateDir(machine.user, kCoordinatorState).value(), "/x/efedllm/coordinator");
  machine.user.root = true;
  EXPECT_EQ(DefaultStateDir(machine.user, kCoordinatorState).value(),
            "/var/lib/efedllm/coordinator");
  EXPECT_FALSE(DefaultStateDir(DaemonUser(), kCoordinatorState).ok());
}

TEST(CoordOptions, AllowsInsecureOnLoopbackAlone) {
  CoordFlags flags = Flags();
  flags.insecure = true;
  ExpectRefused(flags, "--listen 127.0.0.1");
  for (const char* address : {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"}) {
    flags.listen = address;
    EXPECT_TRUE(CheckCoordFlags(flags, Machine()).ok()) << address;
  }
  flags.http = "0.0.0.0:8080";
  ExpectRefused(flags, "--http 127.0.0.1");
}

TEST(CoordOptions, RefusesWhatCannotBe) {
  CoordFlags flags = Flags();
  flags.listen = "nonsense";
  ExpectRefused(flags, "--listen");
  flags = Flags();
  flags.http = "1.2.3.4:99999";
  ExpectRefused(flags, "--http");
  flags = Flags();
  flags.min_workers = -1;
  ExpectRefused(flags, "--min-workers");
  flags = Flags();
  flags.standby = 5000;
  ExpectRefused(flags, "--standby");
  flags = Flags();
  flags.threads = 5000;
  ExpectRefused(flags, "--threads");
  flags = Flags();
  flags.max_sequences = 0;
  ExpectRefused(flags, "--max-sequences");
  flags = Flags();
  flags.queue = 0;
  ExpectRefused(flags, "--queue");
  flags = Flags();
  flags.memory = "lots";
  ExpectRefused(flags, "--memory");
  flags = Flags();
  flags.kv_type = "q4_0";
  ExpectRefused(flags, "--kv-type");
}

TEST(CoordOptions, KeysAndValuesAreKeptAsToldOrAsTheModelIs) {
  CoordFlags flags = Flags();
  EXPECT_EQ(CheckCoordFlags(flags, Machine())->coordinator.kv_type, std::nullopt);
  flags.kv_type = "q8_0";
  EXPECT_EQ(CheckCoordFlags(flags, Machine())->coordinator.kv_type, KvType::kQ8_0);
}

TEST(CoordOptions, HasADraftModelWhereOneIsNamed) {
  CoordFlags flags = Flags();
  EXPECT_EQ(CheckCoordFlags(flags, Machine())->coordinator.draft_model, "");
  flags.draft_model = "small.gguf";
  EXPECT_EQ(CheckCoordFlags(flags, Machine())->coordinator.draft_model, "small.gguf");
}

TEST(CoordOptions, KnowsCodecs) {
  CoordFlags flags = Flags();
  for (const char* codec : {"lossless", "transparent", "balanced", "small", "auto", "int8"}) {
    flags.codec = codec;
    EXPECT_EQ(CheckCoordFlags(flags, Machine())->coordinator.codec.name(), codec);
  }
  for (const char* codec : {"zip", "", "klt"}) {
    flags.codec = codec;
    ExpectRefused(flags, "unknown level");
  }
}

TEST(CoordOptions, ReadsTheRulesOfItsIncentive) {
  CoordFlags flags = Flags();
  flags.incentive_rules = testing::TempDir() + "/incentive.toml";
  ASSERT_TRUE(WriteFileAtomically(flags.incentive_rules, "version = 4\n", 0600).ok());
  EXPECT_EQ(CheckCoordFlags(flags, Machine()).value().coordinator.incentive_rules.version, 4u);
  flags.no_receipts = true;
  ExpectRefused(flags, "--no-receipts");
  flags.no_receipts = false;
  ASSERT_TRUE(WriteFileAtomically(flags.incentive_rules, "\nversion = 0\n", 0600).ok());
  ExpectRefused(flags, "line 2");
}

TEST(CoordOptions, KnowsLayouts) {
  CoordFlags flags = Flags();
  EXPECT_EQ(CheckCoordFlags(flags, Machine())->coordinator.layout, Layout::kAuto);
  flags.layout = "replicas";
  EXPECT_EQ(CheckCoordFlags(flags, Machine())->coordinator.layout, Layout::kReplicas);
  flags.layout = "star";
  ExpectRefused(flags, "auto, chain or replicas");
}

}  // namespace
}  // namespace efedllm
