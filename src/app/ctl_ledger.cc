#include "app/ctl_ledger.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "app/coord_options.h"
#include "app/ctl_ledger_parts.h"
#include "app/daemon.h"
#include "app/local_run.h"
#include "common/status_macros.h"
#include "incentive/ledger.h"
#include "incentive/statement.h"

namespace efedllm {
namespace {

struct StatementFlags {
  LedgerFlags ledger;
  std::string owner, node, key;
  std::string from, to;
  bool csv = false;
};

struct ShowFlags {
  LedgerFlags ledger;
  size_t limit = 20;
  std::string kind, account;
};

struct BackupFlags {
  LedgerFlags ledger;
  std::string out;
};

// A day, or a moment, in UTC.
absl::StatusOr<int64_t> ParseMoment(const std::string& text) {
  absl::Time time;
  std::string error;
  for (const char* format : {"%Y-%m-%d", absl::RFC3339_full, "%Y-%m-%dT%H:%M:%E*SZ"}) {
    if (absl::ParseTime(format, text, &time, &error)) return absl::ToUnixMicros(time);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(text, " is no time: write 2026-11-23 or 2026-11-23T16:00:00Z (UTC)"));
}

absl::StatusOr<StatementQuery> QueryOf(const StatementFlags& flags) {
  StatementQuery query;
  if (!flags.node.empty()) {
    query = {.subject = StatementSubject::kNode, .name = flags.node};
    if (!ParseNodeName(flags.node).has_value()) {
      return absl::InvalidArgumentError("a node's id has 16 hex digits: `efedllm-ctl status`");
    }
  } else if (!flags.key.empty()) {
    query = {.subject = StatementSubject::kApiKey, .name = flags.key};
  } else {
    query = {.subject = StatementSubject::kOwner, .name = flags.owner};
  }
  if (!flags.from.empty()) {
    ASSIGN_OR_RETURN(query.from_micros, ParseMoment(flags.from));
  }
  if (!flags.to.empty()) {
    ASSIGN_OR_RETURN(query.to_micros, ParseMoment(flags.to));
  }
  if (query.from_micros > query.to_micros) {
    return absl::InvalidArgumentError("--from is later than --to");
  }
  return query;
}

absl::Status RunStatement(const StatementFlags& flags) {
  ASSIGN_OR_RETURN(const StatementQuery query, QueryOf(flags));
  ASSIGN_OR_RETURN(const std::unique_ptr<LedgerReader> reader, OpenLedgerReader(flags.ledger));
  ASSIGN_OR_RETURN(const Statement statement, ReadStatement(*reader, query));
  const std::string text = flags.csv           ? StatementCsv(statement)
                           : flags.ledger.json ? StatementJson(statement).dump() + "\n"
                                               : StatementText(statement);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return absl::OkStatus();
}

absl::Status RunBackup(const BackupFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<LedgerReader> reader, OpenLedgerReader(flags.ledger));
  RETURN_IF_ERROR(reader->Backup(flags.out));
  ASSIGN_OR_RETURN(const std::unique_ptr<LedgerReader> copy, LedgerReader::Open(flags.out));
  ASSIGN_OR_RETURN(const uint64_t size, copy->Size());
  if (flags.ledger.json) {
    std::printf("%s\n", nlohmann::json{{"file", flags.out}, {"entries", size}}.dump().c_str());
  } else {
    absl::PrintF("%s has %d entries.\n", flags.out, size);
  }
  return absl::OkStatus();
}

std::string PostingsText(const Entry& entry) {
  std::string text;
  for (const Posting& posting : entry.postings) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", posting.account, " ",
                    posting.amount > 0 ? "+" : "", FormatCredits(posting.amount));
  }
  return text;
}

nlohmann::json EntryJson(const RecordedEntry& recorded) {
  const Entry& entry = recorded.entry;
  nlohmann::json postings = nlohmann::json::array();
  for (const Posting& posting : entry.postings) {
    postings.push_back({{"account", posting.account}, {"amount_micros", posting.amount}});
  }
  nlohmann::json memo = nlohmann::json::parse(entry.memo, nullptr, /*allow_exceptions=*/false);
  if (memo.is_discarded()) memo = nlohmann::json::object();
  return {{"number", recorded.number},    {"key", entry.key},
          {"kind", KindName(entry.kind)}, {"time_micros", entry.time_micros},
          {"about", entry.about},         {"postings", postings},
          {"tokens", entry.tokens},       {"flops", entry.flops},
          {"memo", std::move(memo)},      {"hash", ToHex(recorded.hash)}};
}

absl::Status RunShow(const ShowFlags& flags) {
  EntryFilter filter{.limit = flags.limit, .account = flags.account};
  if (!flags.kind.empty()) {
    filter.kind = ParseKind(flags.kind);
    if (!filter.kind.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("there are no entries of kind ", flags.kind));
    }
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<LedgerReader> reader, OpenLedgerReader(flags.ledger));
  ASSIGN_OR_RETURN(std::vector<RecordedEntry> entries, reader->Latest(filter));
  std::reverse(entries.begin(), entries.end());
  if (flags.ledger.json) {
    nlohmann::json json = nlohmann::json::array();
    for (const RecordedEntry& entry : entries) json.push_back(EntryJson(entry));
    std::printf("%s\n", json.dump().c_str());
    return absl::OkStatus();
  }
  absl::PrintF("%9s  %-23s  %-10s  %-12s  %-32s  %s\n", "ENTRY", "TIME (UTC)", "KIND", "HASH",
               "KEY", "POSTINGS (CREDITS)");
  for (const RecordedEntry& entry : entries) {
    absl::PrintF(
        "%9d  %-23s  %-10s  %-12.12s  %-32s  %s\n", entry.number,
        absl::FormatTime("%Y-%m-%d %H:%M:%E3S", absl::FromUnixMicros(entry.entry.time_micros),
                         absl::UTCTimeZone()),
        KindName(entry.entry.kind), ToHex(entry.hash), entry.entry.key, PostingsText(entry.entry));
  }
  return absl::OkStatus();
}

void AddStatementCommand(CLI::App& ledger, int& exit_code) {
  auto flags = std::make_shared<StatementFlags>();
  CLI::App* command = ledger.add_subcommand(
      "statement",
      "What an owner, a node or an API key did and got between two times: work done and pending,\n"
      "proven and posted, voided, penalties, what was settled, tokens and dense-reference FLOPs,\n"
      "and every entry behind it with all factors of its price.");
  CLI::Option_group* whose = command->add_option_group("whose");
  whose->add_option("--owner", flags->owner, "An owner: the work of all nodes while they were his");
  whose->add_option("--node", flags->node, "A node's id, 16 hex digits");
  whose->add_option("--api-key", flags->key, "An API key's id: tokens and compute, for chargeback");
  whose->require_option(1);
  command->add_option("--from", flags->from,
                      "2026-11-01, or 2026-11-01T12:00:00Z; UTC. Without it, from the beginning");
  command->add_option("--to", flags->to, "The end, itself left out. Without it, all");
  AddLedgerFlags(
      *command, flags->ledger,
      "{\"totals\": {\"posted_micros\", \"tokens\", ...}, \"lines\": [{\"time\", \"kind\",\n"
      "\"amount_micros\", \"memo\", ...}]}; amounts in millionths of a credit");
  command->add_flag("--csv", flags->csv, "A line per posting, amounts in millionths of a credit")
      ->excludes("--json");
  command->footer(
      "Example: efedllm-ctl ledger statement --owner physics --from 2026-11-01 --to 2026-12-01 "
      "--csv");
  OnCommand(*command, exit_code, [flags] { return RunStatement(*flags); });
}

void AddBackupCommand(CLI::App& ledger, int& exit_code) {
  auto flags = std::make_shared<BackupFlags>();
  CLI::App* command = ledger.add_subcommand(
      "backup",
      "Copy the ledger, as it is now, to a new file, while the coordinator goes on writing. The "
      "copy\n"
      "is there in full or not at all, and `verify` proves every byte of it.");
  AddLedgerFlags(*command, flags->ledger, "{\"file\", \"entries\"}");
  command->add_option("--out", flags->out, "The copy; must not be there yet")->required();
  command->footer("Example: efedllm-ctl ledger backup --out ledger-2026-11-23.db");
  OnCommand(*command, exit_code, [flags] { return RunBackup(*flags); });
}

void AddShowCommand(CLI::App& ledger, int& exit_code) {
  auto flags = std::make_shared<ShowFlags>();
  CLI::App* command = ledger.add_subcommand("show", "The latest entries, the newest last");
  AddLedgerFlags(*command, flags->ledger,
                 "[{\"number\", \"key\", \"kind\", \"postings\", \"memo\", \"hash\", ...}]");
  command->add_option("-n,--limit", flags->limit, "How many")
      ->check(CLI::Range(size_t{1}, size_t{1} << 20))
      ->capture_default_str();
  command->add_option(
      "--kind", flags->kind,
      "Only these: opening, pending, post, void, penalty, settlement, usage, owner,\n"
      "rules, trust, evidence");
  command->add_option("--account", flags->account,
                      "Only with a posting on it: escrow:<node>, node:<node>, owner:<name>,\n"
                      "key:<api key id>, issuer, penalty");
  command->footer("Example: efedllm-ctl ledger show --kind void -n 5 --json");
  OnCommand(*command, exit_code, [flags] { return RunShow(*flags); });
}

}  // namespace

void AddLedgerFlags(CLI::App& command, LedgerFlags& flags, const std::string& what_json) {
  CLI::Option* file = command.add_option("--file", flags.file, "A ledger or a copy of one");
  command
      .add_option("--state-dir", flags.state_dir,
                  "The coordinator's state folder, in which ledger.db lies; it may be running.\n"
                  "Default: as efedllm-coord's")
      ->excludes(file);
  command.add_flag("--json", flags.json, what_json);
}

absl::StatusOr<std::string> LedgerFile(const LedgerFlags& flags) {
  if (!flags.file.empty()) return flags.file;
  std::string state_dir = flags.state_dir;
  if (state_dir.empty()) {
    ASSIGN_OR_RETURN(state_dir, DefaultStateDir(ThisUser(), kCoordinatorState));
  }
  return LedgerPath(state_dir);
}

absl::StatusOr<std::unique_ptr<LedgerReader>> OpenLedgerReader(const LedgerFlags& flags) {
  ASSIGN_OR_RETURN(const std::string file, LedgerFile(flags));
  return LedgerReader::Open(file);
}

void AddLedgerCommand(CLI::App& root, int& exit_code) {
  CLI::App* ledger = root.add_subcommand(
      "ledger", "What nodes did and what they got for it, in a file that nobody can change unseen");
  ledger->require_subcommand(1);
  AddLedgerVerifyCommand(*ledger, exit_code);
  AddStatementCommand(*ledger, exit_code);
  AddShowCommand(*ledger, exit_code);
  AddBackupCommand(*ledger, exit_code);
  AddLedgerHeadCommand(*ledger, exit_code);
  AddLedgerHeadsCommand(*ledger, exit_code);
}

}  // namespace efedllm
