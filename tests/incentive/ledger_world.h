// A ledger in a folder of its own, for tests.
#ifndef EFEDLLM_TESTS_INCENTIVE_LEDGER_WORLD_H_
#define EFEDLLM_TESTS_INCENTIVE_LEDGER_WORLD_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/file.h"
#include "common/signing.h"
#include "incentive/ledger.h"
#include "incentive/ledger_verify.h"

namespace efedllm {

inline constexpr NodeId kAda = {0xada}, kBob = {0xb0b};

inline PendingWork Work(const std::string& key, NodeId node, Micros amount, int64_t time = 0) {
  return {.key = key,
          .node = node,
          .amount = amount,
          .tokens = 64,
          .flops = 1 << 20,
          .time_micros = time};
}

class LedgerWorld : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-ledger-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    path_ = LedgerPath(dir_);
    Open();
  }
  void TearDown() override {
    ledger_ = nullptr;
    std::filesystem::remove_all(dir_);
  }

  void Open() {
    ledger_ = nullptr;
    auto ledger = Ledger::Open(path_, absl::FromUnixSeconds(1));
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    ledger_ = *std::move(ledger);
  }
  // A clean stop: the file is all there is.
  void Close() { ledger_ = nullptr; }

  absl::Status Append(const std::vector<Entry>& entries) {
    return ledger_->Append(entries).status();
  }
  absl::Status AppendWork(const PendingWork& work) { return Append({PendingEntry(work, "")}); }
  absl::Status Post(const std::string& key) {
    return ledger_->Post({key}, absl::FromUnixSeconds(2)).status();
  }
  absl::Status Void(const std::string& key, Micros penalty) {
    return ledger_->Void(key, penalty, "", absl::FromUnixSeconds(3)).status();
  }
  Micros Balance(const std::string& account) { return *ledger_->reader().Balance(account); }
  uint64_t Size() { return *ledger_->reader().Size(); }

  SigningKey Key(const std::string& name = "key") const {
    return *SigningKey::OpenOrCreate(dir_ + "/" + name);
  }

  LedgerVerification Verify(const VerifyOptions& options = {}) const {
    auto verification = VerifyLedger(path_, options);
    EXPECT_TRUE(verification.ok()) << verification.status();
    return *std::move(verification);
  }
  std::string Fault(const VerifyOptions& options = {}) const {
    const LedgerVerification verification = Verify(options);
    if (!verification.fault.has_value()) return "";
    const LedgerFault& fault = *verification.fault;
    return absl::StrCat(
        fault.entry.has_value() ? absl::StrCat(*fault.entry, " ", fault.key, ": ") : "",
        fault.what);
  }

  std::string Contents() const { return *ReadFile(path_, 256 << 20); }
  void Overwrite(const std::string& contents) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << contents;
  }

  std::string dir_, path_;
  std::unique_ptr<Ledger> ledger_;
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_INCENTIVE_LEDGER_WORLD_H_
