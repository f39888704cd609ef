#include "store/sealed_pages.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "store/database.h"

namespace efedllm {
namespace {

constexpr DatabaseOptions kSealed = {.sealed = true};

absl::Span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class SealedFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-seals-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    path_ = dir_ + "/a #%1?.db";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<Database> Open() {
    auto database = Database::Open(path_, migrations_, kSealed);
    EXPECT_TRUE(database.ok()) << database.status();
    return database.ok() ? *std::move(database) : nullptr;
  }

  static absl::Status Add(Database& database, int from, int to) {
    return database.Transact([&](Transaction& sql) -> absl::Status {
      for (int i = from; i < to; ++i) {
        auto added = sql.Execute("INSERT INTO t VALUES (?, ?)",
                                 {int64_t{i}, absl::StrCat("text ", i, std::string(60, 'x'))});
        if (!added.ok()) return added.status();
      }
      return absl::OkStatus();
    });
  }

  static int64_t Count(Database& database) {
    int64_t count = -1;
    const absl::Status status = database.Transact([&](Transaction& sql) -> absl::Status {
      auto rows = sql.Query("SELECT count(*) FROM t");
      if (rows.ok()) count = SqlInt((*rows)[0][0]);
      return rows.status();
    });
    EXPECT_TRUE(status.ok()) << status;
    return count;
  }

  std::string Contents() const { return *ReadFile(path_, 64 << 20); }

  std::string dir_, path_;
  const std::vector<std::string> migrations_ = {
      "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT UNIQUE)"};
};

TEST_F(SealedFile, HasASealOnEveryPage) {
  Add(*Open(), 0, 1000).IgnoreError();
  const auto report = CheckSeals(path_);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->pages, 20u);
  EXPECT_EQ(report->unsealed, 0u);
  EXPECT_EQ(report->bad_page, std::nullopt);
  EXPECT_EQ(Count(*Open()), 1000);
}

TEST_F(SealedFile, ShowsEveryBitThatChanges) {
  Add(*Open(), 0, 60).IgnoreError();
  std::string file = Contents();
  for (size_t bit = 0; bit < file.size() * 8; ++bit) {
    const char mask = static_cast<char>(1 << bit % 8);
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ mask);
    ASSERT_EQ(CheckSeals(Bytes(file)).bad_page, bit / 8 / kSealedPageBytes + 1) << "bit " << bit;
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ mask);
  }
  EXPECT_EQ(CheckSeals(Bytes(file)).bad_page, std::nullopt);
}

TEST_F(SealedFile, ShowsAnotherLength) {
  Add(*Open(), 0, 60).IgnoreError();
  const std::string file = Contents();
  EXPECT_TRUE(CheckSeals(Bytes("")).pages == 0);
  for (const size_t size :
       {size_t{1}, size_t{4095}, size_t{4096}, file.size() - 4096, file.size() - 1}) {
    EXPECT_TRUE(CheckSeals(Bytes(file.substr(0, size))).bad_page.has_value()) << size;
  }
  EXPECT_TRUE(CheckSeals(Bytes(file + "x")).bad_page.has_value());
  EXPECT_TRUE(CheckSeals(Bytes(file + std::string(4096, '\0'))).bad_page.has_value());
}

TEST_F(SealedFile, IsNotReadWhereItIsDamaged) {
  Add(*Open(), 0, 1000).IgnoreError();
  std::string file = Contents();
  for (size_t at = 2 * 4096 - 100; at < file.size(); at += 4096) file[at] ^= 1;
  std::ofstream(path_, std::ios::binary) << file;
  auto database = Database::OpenForReading(path_, kSealed);
  ASSERT_TRUE(database.ok()) << database.status();
  const absl::Status status = (*database)->Transact(
      [](Transaction& sql) { return sql.Query("SELECT sum(length(b)) FROM t").status(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
}

TEST_F(SealedFile, ShowsThatAnotherProgramWroteIt) {
  { Add(*Open(), 0, 100).IgnoreError(); }
  {
    auto plain = Database::Open(path_, migrations_);
    ASSERT_TRUE(plain.ok()) << plain.status();
    ASSERT_TRUE(Add(**plain, 100, 110).ok());
  }
  // It kept the seals of what it changed.
  EXPECT_TRUE(CheckSeals(path_)->bad_page.has_value());
}

TEST_F(SealedFile, LogThatAnotherProgramFinishesIsUnsealedUntilRewritten) {
  {
    auto database = Open();
    ASSERT_TRUE(Add(*database, 0, 100).ok());
    std::filesystem::copy(path_, path_ + ".killed");
    std::filesystem::copy(path_ + "-wal", path_ + ".killed-wal");
  }
  path_ += ".killed";
  {
    auto plain = Database::Open(path_, migrations_);
    ASSERT_TRUE(plain.ok()) << plain.status();
    EXPECT_EQ(Count(**plain), 100);
  }
  auto report = CheckSeals(path_);
  ASSERT_TRUE(report.ok());
  EXPECT_GT(report->unsealed, 0u);
  EXPECT_EQ(report->bad_page, std::nullopt);
  auto database = Open();
  ASSERT_TRUE(database->Rewrite().ok());
  report = CheckSeals(path_);
  EXPECT_EQ(report->unsealed, 0u);
  EXPECT_EQ(report->bad_page, std::nullopt);
  EXPECT_EQ(Count(*database), 100);
}

TEST_F(SealedFile, IsBackedUpWithItsSealsWhileItIsWritten) {
  auto database = Open();
  ASSERT_TRUE(Add(*database, 0, 100).ok());
  auto reader = Database::OpenForReading(path_, kSealed);
  ASSERT_TRUE(reader.ok()) << reader.status();
  const std::string copy = dir_ + "/copy.db";
  ASSERT_TRUE((*reader)->Backup(copy).ok());
  ASSERT_TRUE(Add(*database, 100, 200).ok());
  const auto report = CheckSeals(copy);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->unsealed, 0u);
  EXPECT_EQ(report->bad_page, std::nullopt);
  EXPECT_EQ(Count(**Database::OpenForReading(copy, kSealed)), 100);
  EXPECT_EQ((*reader)->Backup(copy).code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(SealedFile, ReaderSeesOneMomentAndStopsNoWriter) {
  auto database = Open();
  ASSERT_TRUE(Add(*database, 0, 100).ok());
  auto reader = Database::OpenForReading(path_, kSealed);
  ASSERT_TRUE(reader.ok()) << reader.status();
  const absl::Status status = (*reader)->Transact([&](Transaction& sql) -> absl::Status {
    auto cursor = sql.Read("SELECT a FROM t ORDER BY a");
    if (!cursor.ok()) return cursor.status();
    SqlRow row;
    int64_t rows = 0;
    while (*(*cursor)->Next(row)) {
      if (++rows == 50) {
        for (int i = 100; i < 3000; i += 100) EXPECT_TRUE(Add(*database, i, i + 100).ok());
      }
    }
    EXPECT_EQ(rows, 100);
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Count(**reader), 3000);
}

TEST_F(SealedFile, CanNotBeWrittenByAReader) {
  auto database = Open();
  auto reader = Database::OpenForReading(path_, kSealed);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_FALSE(Add(**reader, 0, 1).ok());
  EXPECT_EQ(Database::OpenForReading(dir_ + "/none.db").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace efedllm
