#include "coordinator/ledger_head_publisher.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace efedllm {
namespace {

// A worker that answers as its files would.
class FakeKeeper final : public LedgerHeadKeeper {
 public:
  void Offer(const LedgerHeadOffer& offer) override {
    absl::MutexLock lock(&mu_);
    offers_.push_back(offer);
  }
  std::vector<LedgerHeadOffer> offers() const {
    absl::MutexLock lock(&mu_);
    return offers_;
  }
  bool Await(size_t count) const {
    const absl::Time until = absl::Now() + absl::Seconds(20);
    while (offers().size() < count && absl::Now() < until) absl::SleepFor(absl::Milliseconds(5));
    return offers().size() == count;
  }

 private:
  mutable absl::Mutex mu_;
  std::vector<LedgerHeadOffer> offers_ ABSL_GUARDED_BY(mu_);
};

class HeadPublisher : public testing::Test {
 protected:
  HeadPublisher()
      : folder_(absl::StrCat(testing::TempDir(), "/publisher", getpid(), "-",
                             testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    key_ = SigningKey::OpenOrCreate(folder_ + "/signing.key").value();
    ledger_ = Ledger::Open(folder_ + "/ledger.db", clock_.WallNow()).value();
  }
  ~HeadPublisher() override { std::filesystem::remove_all(folder_); }

  void Add(int entries) {
    std::vector<Entry> more;
    for (int i = 0; i < entries; ++i) {
      const PendingWork work{.key = absl::StrCat("w", ++works_), .node = NodeId{7}, .amount = 5};
      more.push_back(PendingEntry(work, "{}"));
    }
    ASSERT_TRUE(ledger_->Append(more).ok());
  }
  std::unique_ptr<LedgerHeadPublisher> Publish(absl::Duration interval = absl::Milliseconds(20)) {
    auto publisher = std::make_unique<LedgerHeadPublisher>(clock_, *key_);
    publisher->Start(*ledger_, interval);
    return publisher;
  }

  const SystemClock clock_;
  std::string folder_;
  std::optional<SigningKey> key_;
  std::unique_ptr<Ledger> ledger_;
  int works_ = 0;
  const std::shared_ptr<FakeKeeper> worker_ = std::make_shared<FakeKeeper>();
};

TEST_F(HeadPublisher, OffersEachNewHeadWithAProofFromTheOneThatTheWorkerKeeps) {
  const auto publisher = Publish();
  publisher->OnHeld(NodeId{1}, worker_, {});
  ASSERT_TRUE(worker_->Await(1));
  LedgerHeadOffer last = worker_->offers()[0];
  EXPECT_TRUE(IsSigned(last.head));
  EXPECT_EQ(last.head.head.size, 1u);
  for (size_t round = 2; round < 5; ++round) {
    publisher->OnHeld(NodeId{1}, worker_, {last.head, ""});
    Add(10);
    ASSERT_TRUE(worker_->Await(round));
    const LedgerHeadOffer next = worker_->offers().back();
    EXPECT_TRUE(CheckHeadFollows(last.head.head, next.head.head, next.proof).ok());
    last = next;
  }
  EXPECT_EQ(publisher->figures().holders, 0u);
  publisher->OnHeld(NodeId{1}, worker_, {last.head, ""});
  EXPECT_EQ(publisher->figures().holders, 1u);
  EXPECT_EQ(publisher->figures().entries, 31u);
  publisher->OnGone(worker_.get());
  EXPECT_EQ(publisher->figures().holders, 0u);
}

TEST_F(HeadPublisher, OffersNothingWhileAnAnswerIsOwedNorAfterARefusal) {
  const auto publisher = Publish();
  publisher->OnHeld(NodeId{1}, worker_, {});
  ASSERT_TRUE(worker_->Await(1));
  Add(1);
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(worker_->offers().size(), 1u);
  publisher->OnHeld(NodeId{1}, worker_, {worker_->offers()[0].head, "a fork"});
  Add(1);
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_EQ(worker_->offers().size(), 1u);
  EXPECT_EQ(publisher->figures().refusers, 1u);
}

TEST_F(HeadPublisher, OffersAWorkerOfAnotherHistoryWhatItWillRefuse) {
  Add(5);
  const SignedLedgerHead kept = ledger_->SignHead(*key_, clock_.WallNow()).value();
  ledger_.reset();
  std::filesystem::remove_all(folder_ + "/ledger.db");
  ledger_ = Ledger::Open(folder_ + "/ledger.db", clock_.WallNow()).value();
  const auto publisher = Publish();
  publisher->OnHeld(NodeId{1}, worker_, {kept, ""});
  ASSERT_TRUE(worker_->Await(1));
  const LedgerHeadOffer offer = worker_->offers()[0];
  EXPECT_FALSE(CheckHeadFollows(kept.head, offer.head.head, offer.proof).ok());
}

TEST_F(HeadPublisher, AHeadThatSomebodyElseSignedIsARefusal) {
  const auto publisher = Publish();
  const auto other = SigningKey::OpenOrCreate(folder_ + "/other.key");
  publisher->OnHeld(NodeId{1}, worker_, {SignHead(ledger_->reader().Head(1).value(), *other), ""});
  EXPECT_EQ(publisher->figures().refusers, 1u);
}

TEST_F(HeadPublisher, WorkersThatAttachBeforeTheLedgerIsOpenAreNotForgotten) {
  LedgerHeadPublisher publisher(clock_, *key_);
  publisher.OnHeld(NodeId{1}, worker_, {});
  publisher.Start(*ledger_);
  EXPECT_TRUE(worker_->Await(1));
}

TEST_F(HeadPublisher, SignsWhatIsNewWhenItIsHurriedAndWhenItEnds) {
  auto publisher = Publish(absl::Hours(1));
  publisher->OnHeld(NodeId{1}, worker_, {});
  ASSERT_TRUE(worker_->Await(1));
  publisher->OnHeld(NodeId{1}, worker_, {worker_->offers()[0].head, ""});
  Add(1);
  publisher->Hurry();
  ASSERT_TRUE(worker_->Await(2));
  publisher->OnHeld(NodeId{1}, worker_, {worker_->offers()[1].head, ""});
  Add(2);
  publisher.reset();
  ASSERT_EQ(worker_->offers().size(), 3u);
  EXPECT_EQ(worker_->offers()[2].head.head.size, 4u);
  EXPECT_EQ(ledger_->reader().LatestHead().value()->head.size, 4u);
}

}  // namespace
}  // namespace efedllm
