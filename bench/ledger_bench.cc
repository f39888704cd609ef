// How fast a ledger of many entries is written, verified and asked: ledger_bench [ENTRIES] [FOLDER]
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/check.h"
#include "incentive/ledger.h"
#include "incentive/ledger_verify.h"
#include "incentive/statement.h"

namespace efedllm {
namespace {

constexpr int kBatch = 1000;
// As long as what the coordinator writes of one chunk.
constexpr char kMemo[] =
    R"({"audit_rate_ppm":100000,"availability_ppm":993000,"flops":134217728,)"
    R"("price_micros_per_tflop":1000000,"promptness_ppm":985000,"rules_version":1,)"
    R"("scarcity_ppm":1250000})";

double Seconds(absl::Time since) { return absl::ToDoubleSeconds(absl::Now() - since); }

// Two of three entries are work, every third posts one.
void Fill(Ledger& ledger, int64_t entries) {
  int64_t number = 1;
  for (int64_t made = 1; made < entries;) {
    std::vector<Entry> batch;
    for (; batch.size() < kBatch && made < entries; ++made, ++number) {
      PendingWork work{
          .key = absl::StrCat("work:0123456789abcdef:42:", number / 3, ".", number % 3),
          .node = NodeId{static_cast<uint64_t>(number % 16 + 1)},
          .amount = 134'217,
          .tokens = 64,
          .flops = 134'217'728,
          .time_micros = number};
      batch.push_back(PendingEntry(work, kMemo));
      if (number % 2 == 0 && ++made < entries) batch.push_back(PostEntry(work, number));
    }
    const auto result = ledger.Append(batch);
    CHECK(result.ok());
  }
}

int Main(int argc, char** argv) {
  const int64_t entries = argc > 1 ? std::atoll(argv[1]) : 1'000'000;
  const std::string folder = argc > 2 ? argv[2] : std::filesystem::temp_directory_path().string();
  const std::string path = absl::StrCat(folder, "/ledger-bench-", getpid(), ".db");
  absl::Time start = absl::Now();
  {
    auto ledger = Ledger::Open(path, absl::Now());
    CHECK(ledger.ok());
    Fill(**ledger, entries);
    absl::PrintF("append, %d at a time   %10.0f entries/s\n", kBatch,
                 static_cast<double>(entries) / Seconds(start));
    start = absl::Now();
    constexpr int kSingle = 200;
    for (int i = 0; i < kSingle; ++i) {
      PendingWork work{.key = absl::StrCat("single:", i), .node = NodeId{1}, .amount = 1};
      CHECK((*ledger)->Append({PendingEntry(work, kMemo)}).ok());
    }
    absl::PrintF("append, one at a time    %10.0f entries/s\n", kSingle / Seconds(start));
    start = absl::Now();
    CHECK((*ledger)->reader().Head(*(*ledger)->reader().Size()).ok());
    absl::PrintF("head of all              %10.2f ms\n", Seconds(start) * 1e3);
  }
  start = absl::Now();
  const auto verification = VerifyLedger(path);
  CHECK(verification.ok() && !verification->fault.has_value());
  absl::PrintF("verify %d entries   %10.2f s, file %d bytes\n", verification->head.size,
               Seconds(start), std::filesystem::file_size(path));
  start = absl::Now();
  { CHECK(Ledger::Open(path, absl::Now()).ok()); }
  absl::PrintF("open and close           %10.2f s\n", Seconds(start));
  start = absl::Now();
  const auto reader = LedgerReader::Open(path);
  const auto statement =
      ReadStatement(**reader, {StatementSubject::kNode, NodeName(NodeId{3}), 0, entries});
  CHECK(statement.ok());
  absl::PrintF("statement, %d lines   %10.2f s\n", statement->lines.size(), Seconds(start));
  start = absl::Now();
  CHECK((*reader)->Backup(path + ".copy").ok());
  absl::PrintF("backup                   %10.2f s\n", Seconds(start));
  std::filesystem::remove(path + ".copy");
  std::filesystem::remove(path);
  return 0;
}

}  // namespace
}  // namespace efedllm

int main(int argc, char** argv) { return efedllm::Main(argc, argv); }
