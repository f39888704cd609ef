#include "coordinator/state_database.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <string>

#include "common/file.h"

namespace efedllm {
namespace {

constexpr NodeId kA{0xA}, kB{0xB};

class StateDatabase : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-state-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    Reopen();
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void Reopen() {
    database_.reset();
    auto database = OpenStateDatabase(dir_);
    ASSERT_TRUE(database.ok()) << database.status();
    database_ = *std::move(database);
  }

  std::string dir_;
  std::unique_ptr<Database> database_;
};

TEST_F(StateDatabase, NeverGivesAnEpochTwice) {
  EXPECT_EQ(NextEpoch(*database_).value(), Epoch{1});
  EXPECT_EQ(NextEpoch(*database_).value(), Epoch{2});
  Reopen();
  EXPECT_EQ(NextEpoch(*database_).value(), Epoch{3});
}

TEST_F(StateDatabase, KeepsWhoIsDrainedUntilHeIsPutBack) {
  const absl::Time early = absl::FromUnixSeconds(1000), late = absl::FromUnixSeconds(2000);
  ASSERT_TRUE(MarkDrained(*database_, kB, early).ok());
  ASSERT_TRUE(MarkDrained(*database_, kA, late).ok());
  ASSERT_TRUE(MarkDrained(*database_, kB, late).ok());
  Reopen();
  const auto drained = ListDrainedNodes(*database_).value();
  ASSERT_EQ(drained.size(), 2u);
  EXPECT_EQ(drained[0].node, kB);
  EXPECT_EQ(drained[0].since, early);
  EXPECT_EQ(drained[1].node, kA);
  ASSERT_TRUE(UnmarkDrained(*database_, kB).ok());
  ASSERT_TRUE(UnmarkDrained(*database_, kB).ok());
  EXPECT_EQ(ListDrainedNodes(*database_).value().size(), 1u);
}

TEST_F(StateDatabase, SaysWhatToDoAboutADamagedFile) {
  ASSERT_TRUE(NextEpoch(*database_).ok());
  database_.reset();
  std::filesystem::resize_file(dir_ + "/coordinator.db", 8192);  // torn
  const absl::Status torn = OpenStateDatabase(dir_).status();
  EXPECT_TRUE(absl::IsDataLoss(torn)) << torn;
  EXPECT_THAT(std::string(torn.message()), testing::HasSubstr("restore it from a backup"));
  ASSERT_TRUE(WriteFileAtomically(dir_ + "/coordinator.db", std::string(9000, 'x'), 0600).ok());
  EXPECT_TRUE(absl::IsDataLoss(OpenStateDatabase(dir_).status()));
}

TEST_F(StateDatabase, KeepsANodesNameWhereARenewalSaysNone) {
  const absl::Time first = absl::FromUnixSeconds(1000), later = absl::FromUnixSeconds(5000);
  ASSERT_TRUE(RecordEnrolment(*database_, {kA, "attic", first, later}).ok());
  ASSERT_TRUE(RecordEnrolment(*database_, {kA, "", later, later + absl::Hours(1)}).ok());
  const auto nodes = ListEnrolledNodes(*database_).value();
  ASSERT_EQ(nodes.size(), 1u);
  EXPECT_EQ(nodes[0].name, "attic");
  EXPECT_EQ(nodes[0].first_seen, first);
  EXPECT_EQ(nodes[0].certificate_expires, later + absl::Hours(1));
}

TEST_F(StateDatabase, AnOwnerStaysUntilTheOperatorSaysAnother) {
  const absl::Time now = absl::FromUnixSeconds(1000);
  const auto owner = [&](const std::string& said) {
    EXPECT_TRUE(RecordEnrolment(*database_, {kA, "attic", now, now, said}).ok());
    return ListEnrolledNodes(*database_).value()[0].owner;
  };
  EXPECT_EQ(owner(""), kNoOwner);
  EXPECT_EQ(owner("anna"), "anna");
  EXPECT_EQ(owner(""), "anna");
  EXPECT_EQ(owner("ben"), "ben");
}

}  // namespace
}  // namespace efedllm
