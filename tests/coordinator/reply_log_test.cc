#include "coordinator/reply_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"

namespace efedllm {
namespace {

using testing::ElementsAre;

// All of a reply, and how it ended: "end", or the error's status.
std::vector<std::string> ReadAll(ReplySource& source) {
  std::vector<std::string> all;
  while (true) {
    const ReplySource::News news = source.Next(absl::Seconds(20));
    if (news.piece.has_value()) {
      all.push_back(*news.piece);
    } else {
      all.push_back(news.error.has_value() ? absl::StrCat(news.error->status)
                    : news.ended           ? "end"
                                           : "nothing");
      return all;
    }
  }
}

class ReplyLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-log-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    Restart();
  }
  void TearDown() override {
    log_.reset();
    std::filesystem::remove_all(dir_);
  }

  void Restart() {
    log_.reset();
    store_ = ReplyStore::Open(dir_ + "/replies.db", clock_).value();
    log_ = std::make_unique<ReplyLog>(clock_, store_.get(), options_);
  }
  ReplyLog::Opened Open(const std::string& id, std::function<void(SharedReply&)> write) {
    return std::get<ReplyLog::Opened>(log_->Open(id, "print", std::move(write)));
  }
  int Refused(const std::string& id, const std::string& fingerprint) {
    const auto opened = log_->Open(id, fingerprint, MustNotRun);
    return std::get<ApiError>(opened).status;
  }
  static void MustNotRun(SharedReply& reply) {
    ADD_FAILURE() << "it ran twice";
    reply.End();
  }
  static void Write(SharedReply& reply) {
    reply.Begin(true);
    reply.Append("one");
    reply.Append("two");
    reply.End();
  }

  std::string dir_;
  ManualClock clock_;
  ReplyLogOptions options_;
  std::unique_ptr<ReplyStore> store_;
  std::unique_ptr<ReplyLog> log_;
};

TEST_F(ReplyLogTest, WhoeverComesDuringTheRunReadsFromTheBeginning) {
  absl::Notification half, rest;
  auto first = Open("a", [&](SharedReply& reply) {
    reply.Begin(true);
    reply.Append("one");
    half.Notify();
    rest.WaitForNotification();
    reply.Append("two");
    reply.End();
  });
  EXPECT_TRUE(first.first);
  half.WaitForNotification();
  auto second = Open("a", MustNotRun);
  EXPECT_FALSE(second.first);
  EXPECT_EQ(*second.reader->Next(absl::Seconds(20)).piece, "one");
  EXPECT_TRUE(second.reader->stream());
  EXPECT_FALSE(second.reader->Next(absl::ZeroDuration()).any());
  rest.Notify();
  EXPECT_THAT(ReadAll(*first.reader), ElementsAre("one", "two", "end"));
  EXPECT_THAT(ReadAll(*second.reader), ElementsAre("two", "end"));
}

TEST_F(ReplyLogTest, AWholeReplyIsReadAgainAlsoAfterARestart) {
  EXPECT_THAT(ReadAll(*Open("a", Write).reader), ElementsAre("one", "two", "end"));
  for (int i = 0; i < 3; ++i) {
    auto again = Open("a", MustNotRun);
    EXPECT_FALSE(again.first);
    EXPECT_THAT(ReadAll(*again.reader), ElementsAre("one", "two", "end"));
    EXPECT_TRUE(again.reader->stream());
    Restart();
  }
  clock_.Advance(absl::Hours(25));
  EXPECT_TRUE(Open("a", Write).first);
}

TEST_F(ReplyLogTest, AnotherRequestWithTheSameIdIsRefused) {
  absl::Notification go_on;
  auto first = Open("a", [&](SharedReply& reply) {
    go_on.WaitForNotification();
    Write(reply);
  });
  EXPECT_EQ(Refused("a", "other"), 422);
  go_on.Notify();
  ReadAll(*first.reader);
  EXPECT_EQ(Refused("a", "other"), 422);
  Restart();
  EXPECT_EQ(Refused("a", "other"), 422);
}

TEST_F(ReplyLogTest, WhatFailedIsNotKept) {
  const auto fail = [](SharedReply& reply) { reply.Fail({503, "no worker", "", ""}); };
  for (int i = 0; i < 3; ++i) {
    auto opened = Open("a", fail);
    EXPECT_TRUE(opened.first) << i;
    EXPECT_THAT(ReadAll(*opened.reader), ElementsAre("503"));
  }
  const auto half = [](SharedReply& reply) {
    reply.Append("one");
    reply.Fail({503, "no worker", "", ""});
  };
  EXPECT_THAT(ReadAll(*Open("a", half).reader), ElementsAre("one", "503"));
  const auto crash = [](SharedReply&) { throw std::runtime_error("boom"); };
  EXPECT_THAT(ReadAll(*Open("a", crash).reader), ElementsAre("500"));
  EXPECT_THAT(ReadAll(*Open("a", Write).reader), ElementsAre("one", "two", "end"));
  Restart();
  EXPECT_EQ(store_->size(), 1u);
}

TEST_F(ReplyLogTest, IsWrittenOnForNobodyForAWhile) {
  absl::Notification ended;
  const auto endless = [&](SharedReply& reply) {
    reply.Append("one");
    while (!reply.Unwanted()) absl::SleepFor(absl::Milliseconds(1));
    reply.Fail({499, "gone", "", ""});
    ended.Notify();
  };
  Open("a", endless).reader.reset();
  clock_.Advance(options_.patience - absl::Seconds(1));
  auto again = Open("a", MustNotRun);
  EXPECT_FALSE(again.first);
  clock_.Advance(absl::Hours(1));
  EXPECT_EQ(*again.reader->Next(absl::Seconds(20)).piece, "one");
  EXPECT_FALSE(again.reader->Next(absl::Milliseconds(20)).any());
  again.reader.reset();
  clock_.Advance(options_.patience + absl::Seconds(1));
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_TRUE(Open("a", Write).first);
}

TEST_F(ReplyLogTest, WhatIsTooLongGoesToThoseWhoReadAndIsNotKept) {
  options_.max_reply_bytes = 1000;
  Restart();
  constexpr size_t kPieces = 1000;
  std::atomic<size_t> appended = 0;
  auto opened = Open("a", [&](SharedReply& reply) {
    for (size_t i = 0; i < kPieces; ++i) {
      reply.Append(std::string(1000, 'x'));
      ++appended;
    }
    reply.End();
  });
  while (appended < 2) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(Refused("a", "print"), 409);
  EXPECT_LT(appended, kPieces);  // it waits for its reader
  EXPECT_EQ(ReadAll(*opened.reader).size(), kPieces + 1);
  EXPECT_TRUE(Open("a", Write).first);
}

TEST_F(ReplyLogTest, WhatIsTooLongEndsWithItsLastReader) {
  options_.max_reply_bytes = 1000;
  Restart();
  absl::Notification ended;
  auto opened = Open("a", [&](SharedReply& reply) {
    while (!reply.Unwanted()) reply.Append(std::string(1000, 'x'));
    reply.Fail({499, "gone", "", ""});
    ended.Notify();
  });
  for (int i = 0; i < 10; ++i) opened.reader->Next(absl::Seconds(20));
  opened.reader.reset();
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(20)));
}

TEST_F(ReplyLogTest, AllThatRunsTogetherIsBounded) {
  options_.max_running_bytes = 10'000;
  Restart();
  std::vector<ReplyLog::Opened> opened;
  for (int i = 0; i < 20; ++i) {
    opened.push_back(Open(absl::StrCat(i), [](SharedReply& reply) {
      reply.Append(std::string(2000, 'x'));
      while (!reply.Unwanted()) absl::SleepFor(absl::Milliseconds(1));
      reply.Fail({499, "gone", "", ""});
    }));
  }
  for (auto& one : opened) EXPECT_TRUE(one.reader->Next(absl::Seconds(20)).piece.has_value());
  // Five fit; whose they are is up to the threads.
  int refused = 0;
  for (int i = 0; i < 20; ++i) {
    const auto again = log_->Open(absl::StrCat(i), "print", MustNotRun);
    const auto* error = std::get_if<ApiError>(&again);
    refused += error != nullptr && error->status == 409;
  }
  EXPECT_GE(refused, 14);
}

TEST_F(ReplyLogTest, StopsWhatRunsAndStoresWhatIsWhole) {
  Open("whole", Write);
  auto running = Open("running", [](SharedReply& reply) {
    while (!reply.Unwanted()) absl::SleepFor(absl::Milliseconds(1));
    reply.Fail({503, "stopping", "", ""});
  });
  std::thread reader(
      [source = std::move(running.reader)] { EXPECT_THAT(ReadAll(*source), ElementsAre("503")); });
  absl::SleepFor(absl::Milliseconds(10));
  log_->Stop();
  reader.join();
  Restart();
  EXPECT_TRUE(store_->Has("whole"));
  EXPECT_FALSE(store_->Has("running"));
}

TEST_F(ReplyLogTest, ManyAtOnceRunOncePerId) {
  std::atomic<int> runs = 0;
  std::vector<std::thread> clients;
  for (int i = 0; i < 48; ++i) {
    clients.emplace_back([&, i] {
      auto opened = Open(absl::StrCat(i % 6), [&](SharedReply& reply) {
        ++runs;
        Write(reply);
      });
      EXPECT_THAT(ReadAll(*opened.reader), ElementsAre("one", "two", "end"));
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(runs, 6);
}

TEST(ReplyLog, ForgetsWholeRepliesWithoutAStore) {
  ManualClock clock;
  ReplyLog log(clock, nullptr);
  const auto write = [](SharedReply& reply) { reply.End(); };
  for (int i = 0; i < 2; ++i) {
    bool first = false;
    while (!first) first = std::get<ReplyLog::Opened>(log.Open("a", "print", write)).first;
  }
}

}  // namespace
}  // namespace efedllm
