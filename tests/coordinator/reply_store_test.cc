#include "coordinator/reply_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

class ReplyStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-replies-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    Open();
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  // As after a restart.
  void Open() {
    store_.reset();
    auto store = ReplyStore::Open(path(), clock_, limits_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::string path() const { return dir_ + "/replies.db"; }
  void Add(const std::string& id, const std::string& body = "{}") {
    const absl::Status added = store_->Add({StoredReply{id, "print of " + id, false, {body}}});
    ASSERT_TRUE(added.ok()) << added;
  }

  std::string dir_;
  ManualClock clock_;
  ReplyStoreLimits limits_;
  std::unique_ptr<ReplyStore> store_;
};

TEST_F(ReplyStoreTest, KeepsRepliesToTheByteOverARestart) {
  const std::string odd("a\0b \xff\xf0\x9f\xa6\x8a", 9);
  ASSERT_TRUE(store_
                  ->Add({StoredReply{"one", "print 1", true, {"{\"x\":1}", odd, "[DONE]"}},
                         StoredReply{"two", "print 2", false, {"{}"}}})
                  .ok());
  Open();
  const auto one = store_->Load("one");
  ASSERT_TRUE(one.ok() && one->has_value()) << one.status();
  EXPECT_EQ((*one)->fingerprint, "print 1");
  EXPECT_TRUE((*one)->stream);
  EXPECT_EQ((*one)->pieces, (std::vector<std::string>{"{\"x\":1}", odd, "[DONE]"}));
  const auto two = store_->Load("two");
  ASSERT_TRUE(two.ok() && two->has_value());
  EXPECT_FALSE((*two)->stream);
  EXPECT_EQ((*two)->pieces, std::vector<std::string>{"{}"});
  const auto none = store_->Load("three");
  EXPECT_TRUE(none.ok() && !none->has_value());
}

TEST_F(ReplyStoreTest, IsForTheOwnersEyesAlone) {
  struct stat info = {};
  ASSERT_EQ(stat(path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(ReplyStoreTest, TheOldestGoWhereThereAreTooMany) {
  limits_.replies = 3;
  Open();
  for (int i = 0; i < 10; ++i) {
    Add(absl::StrCat(i));
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_EQ(store_->size(), 3u);
  EXPECT_FALSE(store_->Has("6"));
  EXPECT_TRUE(store_->Has("7"));
  Open();
  EXPECT_EQ(store_->size(), 3u);
}

TEST_F(ReplyStoreTest, TheOldestGoWhereTheyAreTooLarge) {
  limits_.bytes = 1000;
  Open();
  for (int i = 0; i < 10; ++i) {
    Add(absl::StrCat(i), std::string(300, 'x'));
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_EQ(store_->size(), 3u);
  EXPECT_TRUE(store_->Has("9"));
  Add("huge", std::string(5000, 'x'));
  EXPECT_EQ(store_->size(), 0u);
}

TEST_F(ReplyStoreTest, WhatIsTooOldIsNotThere) {
  Add("old");
  clock_.Advance(limits_.age - absl::Hours(1));
  Add("new");
  EXPECT_TRUE(store_->Has("old"));
  clock_.Advance(absl::Hours(2));
  EXPECT_FALSE(store_->Has("old"));
  EXPECT_FALSE(store_->Load("old")->has_value());
  EXPECT_TRUE(store_->Has("new"));
  EXPECT_TRUE(store_->RemoveExpired().ok());
  EXPECT_EQ(store_->size(), 1u);
  clock_.Advance(limits_.age);
  Open();
  EXPECT_EQ(store_->size(), 0u);
}

TEST_F(ReplyStoreTest, AClockThatWasSetBackLeavesNothingForEver) {
  Add("of the future");
  clock_.Advance(-limits_.age - absl::Hours(1));
  Add("now");
  EXPECT_FALSE(store_->Has("of the future"));
  EXPECT_EQ(store_->size(), 1u);
  EXPECT_TRUE(store_->Has("now"));
}

TEST_F(ReplyStoreTest, AnIdThatComesAgainReplacesItsReply) {
  Add("one", "first");
  Add("one", "second");
  EXPECT_EQ(store_->size(), 1u);
  EXPECT_EQ((*store_->Load("one"))->pieces, std::vector<std::string>{"second"});
}

TEST_F(ReplyStoreTest, AFileThatIsNoDatabaseIsBegunAnew) {
  Add("one");
  store_.reset();
  std::ofstream(path(), std::ios::trunc) << std::string(4096, 'x');
  Open();
  EXPECT_EQ(store_->size(), 0u);
  Add("two");
  EXPECT_TRUE(store_->Has("two"));
}

TEST_F(ReplyStoreTest, APlaceThatCannotBeWrittenIsAnError) {
  EXPECT_FALSE(ReplyStore::Open(dir_ + "/none/replies.db", clock_).ok());
}

}  // namespace
}  // namespace efedllm
