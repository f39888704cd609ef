#include "incentive/statement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "incentive/ledger_world.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

class StatementTest : public LedgerWorld {
 protected:
  void SetUp() override {
    LedgerWorld::SetUp();
    Entry settle{.key = "settle:1", .kind = EntryKind::kSettlement, .time_micros = 40};
    settle.postings = {{NodeAccount(kAda), -70}, {OwnerAccount("carol"), 70}};
    Entry usage{.key = "u1", .kind = EntryKind::kUsage, .time_micros = 15};
    usage.postings = {{kIssuerAccount, 9}, {ApiKeyAccount("team"), -9}};
    usage.tokens = 120;
    usage.flops = 1'000'000;
    usage.memo = R"({"generated_tokens":20,"prompt_tokens":100})";
    Entry more = usage;
    more.key = "u2";
    more.time_micros = 25;
    const PendingWork a = Work("a", kAda, 100, 10), b = Work("b", kAda, 50, 20),
                      c = Work("c", kBob, 30, 30);
    const absl::Status status =
        Append({OwnerEntry(kAda, "carol", 1), OwnerEntry(kBob, "dave", 1),
                PendingEntry(a, R"({"price":7,"why":"a,\"b\""})"), usage, PendingEntry(b, ""), more,
                PendingEntry(c, ""), PostEntry(a, 22), VoidEntry(b, 25, 24, R"({"evidence":"ff"})"),
                OwnerEntry(kAda, "dave", 35), settle});
    ASSERT_TRUE(status.ok()) << status;
  }

  Statement Of(StatementSubject subject, const std::string& name, int64_t from = 0,
               int64_t to = 1000) {
    auto statement = ReadStatement(ledger_->reader(), {subject, name, from, to});
    EXPECT_TRUE(statement.ok()) << statement.status();
    return *std::move(statement);
  }
};

TEST_F(StatementTest, OfANodeHasWhatItDidAndGot) {
  const StatementTotals totals = Of(StatementSubject::kNode, NodeName(kAda)).totals;
  EXPECT_EQ(totals.earned, 150);
  EXPECT_EQ(totals.posted, 100);
  EXPECT_EQ(totals.voided, 50);
  EXPECT_EQ(totals.penalties, 25);
  EXPECT_EQ(totals.settled, 70);
  EXPECT_EQ(totals.closing, 5);
  EXPECT_EQ(totals.in_escrow, 0);
  EXPECT_EQ(totals.tokens, 64u);
}

TEST_F(StatementTest, OfATimeBeginsWhereTheOneBeforeEnded) {
  const StatementTotals first = Of(StatementSubject::kNode, NodeName(kAda), 0, 23).totals;
  const StatementTotals second = Of(StatementSubject::kNode, NodeName(kAda), 23, 50).totals;
  EXPECT_EQ(first.closing, 100);
  EXPECT_EQ(first.in_escrow, 50);
  EXPECT_EQ(second.opening, 100);
  EXPECT_EQ(second.posted, 0);
  EXPECT_EQ(second.penalties, 25);
}

TEST_F(StatementTest, OfAnOwnerHasTheWorkOfNodesWhileTheyWereHis) {
  const Statement carol = Of(StatementSubject::kOwner, "carol");
  EXPECT_EQ(carol.nodes, std::vector<std::string>{NodeName(kAda)});
  EXPECT_EQ(carol.totals.posted, 100);
  EXPECT_EQ(carol.totals.settled, 70);
  const Statement dave = Of(StatementSubject::kOwner, "dave");
  EXPECT_EQ(dave.nodes.size(), 2u);
  EXPECT_EQ(dave.totals.earned, 30);
  EXPECT_EQ(dave.totals.posted, 0);
}

TEST_F(StatementTest, OfAnApiKeyHasTokensAndCompute) {
  const StatementTotals totals = Of(StatementSubject::kApiKey, "team", 0, 20).totals;
  EXPECT_EQ(totals.usages, 1u);
  EXPECT_EQ(totals.tokens, 120u);
  EXPECT_EQ(totals.flops, 1'000'000u);
  EXPECT_EQ(totals.used, 9);
  EXPECT_EQ(Of(StatementSubject::kApiKey, "team").totals.tokens, 240u);
}

TEST_F(StatementTest, SaysSoWhereThereIsNobody) {
  const auto statement = ReadStatement(ledger_->reader(), {StatementSubject::kOwner, "nobody"});
  EXPECT_EQ(statement.status().code(), absl::StatusCode::kNotFound);
}

TEST_F(StatementTest, IsCsvThatSpreadsheetsRead) {
  const std::string csv = StatementCsv(Of(StatementSubject::kNode, NodeName(kAda), 10, 11));
  EXPECT_EQ(csv,
            "time,kind,key,about,account,amount_micros,tokens,flops,memo\r\n"
            "1970-01-01T00:00:00.000010Z,pending,a,,escrow:0000000000000ada,100,64,1048576,"
            "\"{\"\"price\"\":7,\"\"why\"\":\"\"a,\\\"\"b\\\"\"\"\"}\"\r\n");
}

TEST_F(StatementTest, IsJsonWithAllFactors) {
  const nlohmann::json json = StatementJson(Of(StatementSubject::kOwner, "carol"));
  EXPECT_EQ(json["totals"]["posted_micros"], 100);
  EXPECT_EQ(json["lines"][2]["memo"]["price"], 7);
  EXPECT_THAT(StatementText(Of(StatementSubject::kOwner, "carol")), HasSubstr("0.000100"));
}

}  // namespace
}  // namespace efedllm
