// `efedllm-ctl ledger heads`, `ledger verify --heads` and `audit`, on files.
#include "app/ctl_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "app/ctl_audit.h"
#include "cluster/ledger_head_json.h"
#include "common/sha256.h"
#include "incentive/ledger.h"

namespace efedllm {
namespace {

using testing::HasSubstr;

class LedgerTools : public testing::Test {
 protected:
  LedgerTools()
      : folder_(absl::StrCat(testing::TempDir(), "/ledger-tools", getpid(), "-",
                             testing::UnitTest::GetInstance()->current_test_info()->name())) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ + "/worker/ledger-heads");
    key_ = SigningKey::OpenOrCreate(folder_ + "/signing.key").value();
    ledger_ = Ledger::Open(LedgerPath(folder_), absl::Now()).value();
  }
  ~LedgerTools() override { std::filesystem::remove_all(folder_); }

  // The exit code; out_ and err_ have what was written.
  int Run(const std::vector<std::string>& words) {
    CLI::App app;
    int exit_code = 0;
    AddLedgerCommand(app, exit_code);
    AddAuditCommand(app, exit_code);
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    try {
      app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
    } catch (const CLI::ParseError& error) {
      exit_code = error.get_exit_code() == 0 ? 0 : 2;
    }
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return exit_code;
  }
  void Book(const std::string& key, const std::string& memo) {
    Entry entry{.key = key, .kind = EntryKind::kEvidence};
    entry.about = "0123456789abcdef";
    entry.memo = memo;
    ASSERT_TRUE(ledger_->Append({&entry, 1}).ok());
  }
  SignedLedgerHead Sign() { return ledger_->SignHead(*key_, absl::Now()).value(); }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::app) << text;
  }
  std::string WorkersFile(const std::string& ending = ".jsonl") const {
    return absl::StrCat(folder_, "/worker/ledger-heads/", PublicKeyHex(key_->public_key()), ending);
  }

  const std::string folder_;
  std::optional<SigningKey> key_;
  std::unique_ptr<Ledger> ledger_;
  std::string out_, err_;
};

TEST_F(LedgerTools, ALedgerIsProvenAgainstTheHeadsInAWorkersStateFolder) {
  Write(WorkersFile(".1.jsonl"), HeadToJson(Sign()) + "\n");
  Book("a", "{}");
  Write(WorkersFile(), HeadToJson(Sign()) + "\n");
  Book("b", "{}");
  const std::string copy = folder_ + "/copy.db";
  ASSERT_TRUE(ledger_->reader().Backup(copy).ok());
  EXPECT_EQ(Run({"ledger", "verify", "--file", copy, "--heads", folder_ + "/worker", "--json"}), 0)
      << err_;
  EXPECT_EQ(nlohmann::json::parse(out_)["kept_heads"], 2);
  // Another coordinator's head does not count, nor its key.
  const auto other = SigningKey::OpenOrCreate(folder_ + "/other.key");
  LedgerHead head = Sign().head;
  head.ledger[0] ^= 1;
  Write(folder_ + "/worker/ledger-heads/other.jsonl", HeadToJson(SignHead(head, *other)) + "\n");
  EXPECT_EQ(Run({"ledger", "verify", "--file", copy, "--heads", folder_ + "/worker"}), 1);
  EXPECT_THAT(err_, HasSubstr("--key"));
  EXPECT_EQ(Run({"ledger", "verify", "--file", copy, "--heads", folder_ + "/worker", "--key",
                 PublicKeyHex(key_->public_key())}),
            0)
      << err_;
  // One that was signed behind the copy's end: entries are missing in the copy.
  Book("c", "{}");
  Write(WorkersFile(), HeadToJson(Sign()) + "\n");
  EXPECT_EQ(Run({"ledger", "verify", "--file", copy, "--heads", WorkersFile()}), 1);
  EXPECT_THAT(err_, HasSubstr("missing"));
}

TEST_F(LedgerTools, TwoHeadsProveAForkWithoutALedger) {
  Book("a", "{}");
  const SignedLedgerHead head = Sign();
  Write(WorkersFile(), HeadToJson(head) + "\n");
  EXPECT_EQ(Run({"ledger", "heads", folder_ + "/worker"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("1 signed heads"));
  LedgerHead other = head.head;
  other.root[5] ^= 1;
  Write(WorkersFile(".forks.jsonl"), HeadToJson(SignHead(other, *key_)) + "\n");
  EXPECT_EQ(Run({"ledger", "heads", folder_ + "/worker"}), 1);
  EXPECT_THAT(err_, HasSubstr("a fork is proven: the same key signed two histories of 2 entries"));
  EXPECT_THAT(err_, HasSubstr(HeadToJson(head)));
  EXPECT_EQ(Run({"ledger", "heads", folder_ + "/worker", "--json"}), 1);
  EXPECT_EQ(nlohmann::json::parse(out_)["fork"]["heads"].size(), 2u);
  // One that nobody signed proves nothing.
  SignedLedgerHead forged = head;
  forged.head.root[5] ^= 1;
  Write(folder_ + "/forged.jsonl", HeadToJson(head) + "\n" + HeadToJson(forged) + "\n");
  EXPECT_EQ(Run({"ledger", "heads", folder_ + "/forged.jsonl"}), 1);
  EXPECT_THAT(err_, HasSubstr("does not have the signature"));
  EXPECT_EQ(Run({"ledger", "heads", folder_ + "/nothing"}), 1);
  EXPECT_EQ(Run({"ledger", "heads"}), 2);
}

TEST_F(LedgerTools, EvidenceIsShownWithWhatTheLedgerKnowsOfIt) {
  EXPECT_EQ(Run({"audit", "list", "--state-dir", folder_}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("no chunk was proven wrong"));
  std::filesystem::create_directories(folder_ + "/evidence");
  const auto put = [&](const std::string& id, const std::string& found) {
    const nlohmann::json json = {{"id", id},
                                 {"summary", "flipped bit 3: 1 values in 1 rows differ"},
                                 {"found", found},
                                 {"node", id.substr(0, 16)},
                                 {"layers", {2, 5}},
                                 {"positions", {0, 64}},
                                 {"verifiers", {}},
                                 {"difference", {{"pattern", "flipped bit"}, {"dimension", 17}}},
                                 {"receipt", {{"number", 3}}}};
    const std::string text = json.dump(2) + "\n";
    Write(absl::StrCat(folder_, "/evidence/", id, ".json"), text);
    return ToHex(Sha256({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
  };
  const std::string first = "0123456789abcdef-e1-r3-c0", second = "fedcba9876543210-e1-r0-c1";
  const std::string digest = put(first, "2026-11-23T10:00:00Z");
  put(second, "2026-11-23T09:00:00Z");
  Book("evidence:" + first, nlohmann::json{{"digest", digest}}.dump());
  EXPECT_EQ(Run({"audit", "list", "--state-dir", folder_, "--json"}), 0) << err_;
  nlohmann::json list = nlohmann::json::parse(out_);
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[1]["id"], first);  // the newest last
  EXPECT_EQ(list[1]["ledger"]["entry"], 2);
  EXPECT_EQ(list[1]["ledger"]["as_booked"], true);
  EXPECT_TRUE(list[0]["ledger"]["entry"].is_null());
  EXPECT_EQ(Run({"audit", "list", "--state-dir", folder_, "--node", "fedc", "--limit", "5"}), 0);
  EXPECT_THAT(out_, HasSubstr(second));
  EXPECT_THAT(out_, testing::Not(HasSubstr(first)));
  EXPECT_EQ(Run({"audit", "show", first, "--state-dir", folder_}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("its hash stands in entry 2 of the ledger"));
  EXPECT_THAT(out_, HasSubstr("dimension 17"));
  Write(absl::StrCat(folder_, "/evidence/", first, ".json"), " ");
  EXPECT_EQ(Run({"audit", "show", first, "--state-dir", folder_}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("somebody changed it"));
  EXPECT_EQ(Run({"audit", "show", "nothing", "--state-dir", folder_}), 1);
  EXPECT_EQ(Run({"audit", "show", "../ledger.db", "--state-dir", folder_}), 1);
}

}  // namespace
}  // namespace efedllm
