#include "coordinator/join_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "absl/strings/ascii.h"
#include "common/file.h"
#include "coordinator/state_database.h"
#include "net/join_token.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

class JoinTokensTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-tokens-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    auto database = OpenStateDatabase(dir_);
    ASSERT_TRUE(database.ok()) << database.status();
    database_ = *std::move(database);
    tokens_ = std::make_unique<JoinTokens>(*database_, clock_, ca_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  JoinTokens::Created Create(absl::Duration ttl, uint64_t uses) {
    return tokens_->Create(ttl, uses).value();
  }
  absl::Status Redeem(const std::string& text) {
    return tokens_->Redeem(ParseJoinToken(text).value().secret).status();
  }

  std::string dir_;
  ManualClock clock_;
  const Sha256Digest ca_ = Sha256({});
  std::unique_ptr<Database> database_;
  std::unique_ptr<JoinTokens> tokens_;
};

void ExpectRefused(const absl::Status& status, const std::string& why) {
  EXPECT_TRUE(absl::IsUnauthenticated(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(why));
}

TEST_F(JoinTokensTest, AdmitsAsManyWorkersAsItAllows) {
  const JoinTokens::Created two = Create(absl::Hours(1), 2);
  EXPECT_TRUE(Redeem(two.text).ok());
  EXPECT_TRUE(Redeem(two.text).ok());
  ExpectRefused(Redeem(two.text), "spent");
  const JoinTokens::Created any = Create(absl::Hours(1), 0);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(Redeem(any.text).ok());
}

TEST_F(JoinTokensTest, SaysWhichOfWrongRevokedOrExpiredATokenIs) {
  ExpectRefused(tokens_->Redeem("sixteen bytes!!!").status(), "wrong");
  ExpectRefused(tokens_->Redeem("").status(), "wrong");
  const JoinTokens::Created revoked = Create(absl::Hours(1), 0);
  ASSERT_TRUE(tokens_->Revoke(revoked.info.id).ok());
  ExpectRefused(Redeem(revoked.text), "revoked");
  const JoinTokens::Created expired = Create(absl::Hours(1), 0);
  const JoinTokens::Created endless = Create(absl::ZeroDuration(), 0);
  clock_.Advance(absl::Hours(1));
  ExpectRefused(Redeem(expired.text), "expired");
  EXPECT_TRUE(Redeem(endless.text).ok());
}

TEST_F(JoinTokensTest, RefusesAbsurdTimesAndUses) {
  EXPECT_TRUE(absl::IsInvalidArgument(tokens_->Create(-absl::Seconds(1), 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(tokens_->Create(absl::InfiniteDuration(), 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(tokens_->Create(absl::Hours(1), ~uint64_t{0}).status()));
}

TEST_F(JoinTokensTest, ListsTokensWithoutTheirSecrets) {
  const JoinTokens::Created token = Create(absl::Hours(1), 3);
  ASSERT_TRUE(Redeem(token.text).ok());
  const std::vector<JoinTokenInfo> list = tokens_->List().value();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].id, token.info.id);
  EXPECT_EQ(list[0].used, 1u);
  EXPECT_EQ(list[0].uses, 3u);
  EXPECT_TRUE(absl::IsNotFound(tokens_->Revoke("ffffffff").status()));
}

TEST_F(JoinTokensTest, KeepsNoSecretInTheDatabase) {
  const JoinTokens::Created token = Create(absl::Hours(1), 0);
  const std::string secret = ParseJoinToken(token.text).value().secret;
  tokens_.reset();
  database_.reset();
  for (const auto& file : std::filesystem::directory_iterator(dir_)) {
    EXPECT_EQ(ReadFile(file.path(), 1 << 20).value().find(secret), std::string::npos);
  }
}

TEST_F(JoinTokensTest, KeepsTheStartTokenOverARestartAndReplacesADeadOne) {
  const std::string first = tokens_->StartToken(dir_).value();
  EXPECT_EQ(tokens_->StartToken(dir_).value(), first);
  struct stat info;
  ASSERT_EQ(stat((dir_ + "/join-token").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_TRUE(Redeem(first).ok());

  ASSERT_TRUE(tokens_->Revoke(tokens_->List().value()[0].id).ok());
  const std::string second = tokens_->StartToken(dir_).value();
  EXPECT_NE(second, first);
  clock_.Advance(kStartTokenTtl);
  EXPECT_NE(tokens_->StartToken(dir_).value(), second);

  ASSERT_TRUE(WriteFileAtomically(dir_ + "/join-token", "nonsense\n", 0600).ok());
  EXPECT_TRUE(Redeem(tokens_->StartToken(dir_).value()).ok());
}

TEST_F(JoinTokensTest, SaysWhoseNodesATokenAdmits) {
  const std::string text = tokens_->Create(absl::Hours(1), 0, "anna").value().text;
  EXPECT_EQ(tokens_->Redeem(ParseJoinToken(text).value().secret).value().owner, "anna");
  EXPECT_EQ(tokens_->List().value().back().owner, "anna");
  EXPECT_TRUE(
      absl::IsInvalidArgument(tokens_->Create(absl::Hours(1), 0, std::string(65, 'x')).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(tokens_->Create(absl::Hours(1), 0, "a\nb").status()));
}

TEST_F(JoinTokensTest, NumbersEpochsOnOverARestart) {
  EXPECT_EQ(NextEpoch(*database_)->v, 1u);
  EXPECT_EQ(NextEpoch(*database_)->v, 2u);
  tokens_.reset();
  database_.reset();
  database_ = OpenStateDatabase(dir_).value();
  EXPECT_EQ(NextEpoch(*database_)->v, 3u);
}

TEST_F(JoinTokensTest, RemembersWhenANodeWasFirstSeen) {
  const absl::Time start = absl::FromUnixSeconds(1000);
  ASSERT_TRUE(RecordEnrolment(*database_, {NodeId{~uint64_t{0}}, "a", start, start}).ok());
  const absl::Time later = start + absl::Hours(1);
  ASSERT_TRUE(RecordEnrolment(*database_, {NodeId{~uint64_t{0}}, "", later, later}).ok());
  const std::vector<EnrolledNode> nodes = ListEnrolledNodes(*database_).value();
  ASSERT_EQ(nodes.size(), 1u);
  EXPECT_EQ(nodes[0].node.v, ~uint64_t{0});
  EXPECT_EQ(nodes[0].name, "a");
  EXPECT_EQ(nodes[0].first_seen, start);
  EXPECT_EQ(nodes[0].certificate_expires, later);
}

}  // namespace
}  // namespace efedllm
