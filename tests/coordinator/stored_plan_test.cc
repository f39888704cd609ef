#include "coordinator/stored_plan.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "coordinator/state_database.h"

namespace efedllm {
namespace {

constexpr NodeId kA{0xA}, kB{0xFFFF'0000'1111'2222}, kC{0xC}, kStandby{0xD};

class StoredPlanTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-plan-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    Reopen();
    for (int i = 0; i < 9; ++i) ASSERT_TRUE(NextEpoch(*database_).ok());
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void Reopen() {
    database_.reset();
    auto database = OpenStateDatabase(dir_);
    ASSERT_TRUE(database.ok()) << database.status();
    database_ = *std::move(database);
  }
  void Execute(const std::string& sql) {
    const absl::Status done =
        database_->Transact([&](Transaction& t) { return t.Execute(sql).status(); });
    ASSERT_TRUE(done.ok()) << done;
  }
  std::optional<StoredPlan> Load() { return LoadPlan(*database_).value(); }

  std::string dir_;
  std::unique_ptr<Database> database_;
};

// Two copies of a model of 12 layers, and a node that waits.
StoredPlan TwoChains() {
  StoredPlan stored;
  stored.epoch = stored.plan.epoch = Epoch{9};
  stored.plan.chains = {{{{kB, {0, 5}, true}, {kA, {5, 12}}}, 4096}, {{{kC, {0, 12}}}, 512}};
  stored.plan.prediction = {12.5, 3.25, 700};
  stored.nodes = {kC, kB, kA, kStandby};
  return stored;
}

TEST_F(StoredPlanTest, ComesBackAsItWasSaved) {
  EXPECT_FALSE(Load());
  ASSERT_TRUE(SavePlan(*database_, TwoChains()).ok());
  Reopen();
  const std::optional<StoredPlan> loaded = Load();
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->epoch, Epoch{9});
  EXPECT_EQ(loaded->plan.epoch, Epoch{9});
  EXPECT_EQ(loaded->plan.chains, TwoChains().plan.chains);
  EXPECT_EQ(loaded->nodes, TwoChains().nodes);
  EXPECT_EQ(loaded->plan.prediction.tokens_per_second, 12.5);
  EXPECT_EQ(loaded->plan.prediction.single_tokens_per_second, 3.25);
  EXPECT_EQ(loaded->plan.prediction.prompt_tokens_per_second, 700);
}

TEST_F(StoredPlanTest, IsTheLastThatWasSaved) {
  ASSERT_TRUE(SavePlan(*database_, TwoChains()).ok());
  StoredPlan later = TwoChains();
  later.epoch = later.plan.epoch = Epoch{8};
  later.plan.chains = {{{{kA, {0, 12}}}, 99}};
  later.nodes = {kA};
  ASSERT_TRUE(SavePlan(*database_, later).ok());
  const std::optional<StoredPlan> loaded = Load();
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->plan.chains, later.plan.chains);
  EXPECT_EQ(loaded->nodes, later.nodes);
}

TEST_F(StoredPlanTest, IsNotSavedWhereItIsNoPlan) {
  StoredPlan gap = TwoChains();
  gap.plan.chains[0].stages[1].layers.first = 6;
  EXPECT_TRUE(absl::IsInvalidArgument(SavePlan(*database_, gap)));
  StoredPlan twice = TwoChains();
  twice.plan.chains[1].stages[0].node = kA;
  EXPECT_TRUE(absl::IsInvalidArgument(SavePlan(*database_, twice)));
  StoredPlan stranger = TwoChains();
  stranger.nodes.erase(stranger.nodes.begin());
  EXPECT_TRUE(absl::IsInvalidArgument(SavePlan(*database_, stranger)));
  EXPECT_FALSE(Load());
}

TEST_F(StoredPlanTest, IsNoneWhereARowIsDamaged) {
  for (const std::string damage : {"UPDATE stored_plan SET epoch = 0",
                                   "UPDATE stored_plan SET epoch = 10",
                                   "UPDATE stored_plan SET epoch = 'nine'",
                                   "UPDATE stored_plan SET epoch = -9",
                                   "UPDATE stored_plan SET tokens_per_second = -1",
                                   "UPDATE stored_plan SET epoch = 1e300",
                                   "UPDATE stored_plan SET tokens_per_second = 9e999",
                                   "DELETE FROM stored_stages",
                                   "DELETE FROM stored_stages WHERE position = 0",
                                   "DELETE FROM stored_nodes",
                                   "DELETE FROM stored_stages WHERE chain = 0",
                                   "UPDATE stored_stages SET first_layer = -1",
                                   "UPDATE stored_stages SET last_layer = 11",
                                   "UPDATE stored_stages SET first_layer = 0",
                                   "UPDATE stored_stages SET last_layer = 4294967308",
                                   "UPDATE stored_stages SET relayed = 2",
                                   "UPDATE stored_stages SET kv_tokens = 0",
                                   "UPDATE stored_stages SET kv_tokens = -1",
                                   "UPDATE stored_stages SET kv_tokens = position + 1",
                                   "UPDATE stored_stages SET node = 7",
                                   "UPDATE stored_stages SET node = 'someone'",
                                   "UPDATE stored_stages SET chain = chain * 2",
                                   "UPDATE stored_stages SET node = '0000000000000000'",
                                   "UPDATE stored_stages SET node = '000000000000000a'",
                                   "UPDATE stored_nodes SET node = '000000000000000a'",
                                   "UPDATE stored_nodes SET node = x'00ff'"}) {
    ASSERT_TRUE(SavePlan(*database_, TwoChains()).ok());
    Execute(damage);
    EXPECT_FALSE(Load()) << damage;
  }
  // A new one takes its place.
  ASSERT_TRUE(SavePlan(*database_, TwoChains()).ok());
  EXPECT_TRUE(Load());
}

}  // namespace
}  // namespace efedllm
