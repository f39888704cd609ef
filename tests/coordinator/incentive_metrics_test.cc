#include "coordinator/incentive_metrics.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

class IncentiveFigures : public testing::Test {
 protected:
  IncentiveFigures() : path_(absl::StrCat(testing::TempDir(), "/figures", getpid(), ".db")) {
    Remove();
    ledger_ = Ledger::Open(path_, absl::UnixEpoch()).value();
  }
  ~IncentiveFigures() override {
    ledger_.reset();
    Remove();
  }
  void Remove() {
    for (const char* ending : {"", "-wal", "-shm"}) std::filesystem::remove(path_ + ending);
  }

  void Add(int first, int count) {
    std::vector<Entry> entries;
    for (int i = first; i < first + count; ++i) {
      const PendingWork work{.key = absl::StrCat("w", i), .node = NodeId{7}, .amount = 100};
      entries.push_back(PendingEntry(work, "{}"));
    }
    ASSERT_TRUE(ledger_->Append(entries).ok());
  }
  static double Find(const std::vector<prometheus::MetricFamily>& families, const std::string& name,
                     const std::string& label = "") {
    for (const prometheus::MetricFamily& family : families) {
      if (family.name != name) continue;
      for (const prometheus::ClientMetric& metric : family.metric) {
        if (!label.empty() && metric.label.back().value != label) continue;
        return family.type == prometheus::MetricType::Counter ? metric.counter.value
                                                              : metric.gauge.value;
      }
    }
    ADD_FAILURE() << name << " " << label << " is missing";
    return -1;
  }

  std::string path_;
  std::unique_ptr<Ledger> ledger_;
};

TEST_F(IncentiveFigures, PayIsCountedFromScrapeToScrape) {
  const IncentiveMetrics metrics({.ledger = ledger_.get()});
  const auto scrape = [&] {
    std::vector<prometheus::MetricFamily> families;
    metrics.Collect({}, families);
    return families;
  };
  Add(0, 5);
  EXPECT_EQ(Find(scrape(), "efedllm_pay_micros_total", "pending"), 500);
  ASSERT_TRUE(ledger_->Post(std::vector<std::string>{"w0", "w1"}, absl::UnixEpoch()).ok());
  ASSERT_TRUE(ledger_->Void("w2", 1000, "{}", absl::UnixEpoch()).ok());
  Add(5, 1);
  for (int again = 0; again < 2; ++again) {
    const auto families = scrape();
    EXPECT_EQ(Find(families, "efedllm_pay_micros_total", "pending"), 600);
    EXPECT_EQ(Find(families, "efedllm_pay_micros_total", "posted"), 200);
    EXPECT_EQ(Find(families, "efedllm_pay_micros_total", "voided"), 100);
    EXPECT_EQ(Find(families, "efedllm_ledger_entries"), 10);
  }
}

TEST_F(IncentiveFigures, WhereThereIsNoLedgerThereAreNoFigures) {
  std::vector<prometheus::MetricFamily> families;
  IncentiveMetrics({}).Collect({}, families);
  EXPECT_TRUE(families.empty());
  v1::StatusReply reply;
  FillIncentive({}, reply);
  EXPECT_FALSE(reply.has_ledger());
  EXPECT_FALSE(reply.has_audits());
}

TEST_F(IncentiveFigures, TheStatusHasWhatThereIs) {
  Add(0, 3);
  v1::StatusReply reply;
  FillIncentive({.ledger = ledger_.get()}, reply);
  EXPECT_EQ(reply.ledger().entries(), 4u);
  EXPECT_EQ(reply.ledger().escrow_micros(), 300);
}

}  // namespace
}  // namespace efedllm
