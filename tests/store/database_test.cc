#include "store/database.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "common/file.h"

namespace efedllm {
namespace {

class DatabaseFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-store-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    path_ = dir_ + "/test.db";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string dir_, path_;
  const std::vector<std::string> migrations_ = {
      "CREATE TABLE pets (name TEXT PRIMARY KEY, legs INTEGER)"};
};

int64_t CountPets(Database& database) {
  int64_t count = -1;
  EXPECT_TRUE(database
                  .Transact([&](Transaction& sql) -> absl::Status {
                    auto rows = sql.Query("SELECT count(*) FROM pets");
                    if (!rows.ok()) return rows.status();
                    count = SqlInt((*rows)[0][0]);
                    return absl::OkStatus();
                  })
                  .ok());
  return count;
}

absl::Status AddPet(Database& database, const std::string& name, int64_t legs) {
  return database.Transact([&](Transaction& sql) {
    return sql.Execute("INSERT INTO pets VALUES (?, ?)", {name, legs}).status();
  });
}

TEST_F(DatabaseFile, KeepsRowsOverAReopen) {
  {
    auto database = Database::Open(path_, migrations_);
    ASSERT_TRUE(database.ok()) << database.status();
    ASSERT_TRUE(AddPet(**database, "Milo", 4).ok());
  }
  auto database = Database::Open(path_, migrations_);
  ASSERT_TRUE(database.ok()) << database.status();
  EXPECT_EQ(CountPets(**database), 1);
}

TEST_F(DatabaseFile, IsReadableByItsOwnerAlone) {
  auto database = Database::Open(path_, migrations_);
  ASSERT_TRUE(database.ok());
  struct stat info;
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(DatabaseFile, UndoesATransactionWhoseBodyFails) {
  auto database = Database::Open(path_, migrations_);
  ASSERT_TRUE(database.ok());
  const absl::Status status = (*database)->Transact([&](Transaction& sql) -> absl::Status {
    EXPECT_TRUE(sql.Execute("INSERT INTO pets VALUES (?, ?)", {"Milo", int64_t{4}}).ok());
    return absl::AbortedError("changed my mind");
  });
  EXPECT_TRUE(absl::IsAborted(status));
  EXPECT_EQ(CountPets(**database), 0);
}

TEST_F(DatabaseFile, AppliesNewMigrationsOnceToAnOldFile) {
  { ASSERT_TRUE(AddPet(**Database::Open(path_, migrations_), "Milo", 4).ok()); }
  std::vector<std::string> more = migrations_;
  more.push_back("ALTER TABLE pets ADD COLUMN colour TEXT DEFAULT 'red'");
  for (int i = 0; i < 2; ++i) {
    auto database = Database::Open(path_, more);
    ASSERT_TRUE(database.ok()) << database.status();
    EXPECT_TRUE((*database)
                    ->Transact([](Transaction& sql) -> absl::Status {
                      auto rows = sql.Query("SELECT colour FROM pets WHERE name = ?", {"Milo"});
                      if (!rows.ok()) return rows.status();
                      EXPECT_EQ(SqlText((*rows)[0][0]), "red");
                      return absl::OkStatus();
                    })
                    .ok());
  }
}

TEST_F(DatabaseFile, RefusesAFileOfANewerVersion) {
  { ASSERT_TRUE(Database::Open(path_, migrations_).ok()); }
  EXPECT_TRUE(absl::IsFailedPrecondition(Database::Open(path_, {}).status()));
}

TEST_F(DatabaseFile, TurnsWhatTheLibraryThrowsIntoAStatus) {
  auto database = Database::Open(path_, migrations_);
  ASSERT_TRUE(database.ok());
  ASSERT_TRUE(AddPet(**database, "Milo", 4).ok());
  EXPECT_TRUE(absl::IsInternal(AddPet(**database, "Milo", 4)));  // breaks the primary key
  EXPECT_TRUE(absl::IsInternal((*database)->Transact(
      [](Transaction& sql) { return sql.Query("SELECT nonsense").status(); })));
  ASSERT_TRUE(WriteFileAtomically(dir_ + "/broken.db", std::string(4096, 'x'), 0600).ok());
  EXPECT_TRUE(absl::IsDataLoss(Database::Open(dir_ + "/broken.db", migrations_).status()));
  EXPECT_FALSE(Database::Open(dir_ + "/absent/test.db", migrations_).ok());
}

}  // namespace
}  // namespace efedllm
