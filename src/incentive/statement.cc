#include "incentive/statement.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "common/status_macros.h"
#include "incentive/settlement.h"

namespace efedllm {
namespace {

constexpr absl::string_view kNodePrefix = "node:";
constexpr absl::string_view kEscrowPrefix = "escrow:";

std::string SubjectAccount(const StatementQuery& query) {
  switch (query.subject) {
    case StatementSubject::kNode:
      return absl::StrCat(kNodePrefix, query.name);
    case StatementSubject::kOwner:
      return OwnerAccount(query.name);
    case StatementSubject::kApiKey:
      return ApiKeyAccount(query.name);
  }
  return "";
}

// "" for accounts that are no node's.
std::string NodeOfAccount(absl::string_view account) {
  for (const absl::string_view prefix : {kNodePrefix, kEscrowPrefix}) {
    if (absl::StartsWith(account, prefix)) return std::string(account.substr(prefix.size()));
  }
  return "";
}

// Whose a node was when.
class Owners {
 public:
  explicit Owners(absl::Span<const RecordedEntry> entries) {
    for (const RecordedEntry& recorded : entries) {
      const Entry& entry = recorded.entry;
      const std::optional<OwnerBinding> binding = OwnerBindingOf(entry);
      if (!binding) continue;
      bindings_[NodeName(binding->node)][{entry.time_micros, entry.key}] = binding->owner;
    }
  }

  // "" before the first binding.
  std::string At(const std::string& node, int64_t time_micros) const {
    const auto found = bindings_.find(node);
    if (found == bindings_.end()) return "";
    std::string owner;
    for (const auto& [since, name] : found->second) {
      if (since.first > time_micros) break;
      owner = name;
    }
    return owner;
  }

  std::vector<std::string> NodesOf(const std::string& owner) const {
    std::vector<std::string> nodes;
    for (const auto& [node, owners] : bindings_) {
      const bool was_his = std::any_of(owners.begin(), owners.end(), [&](const auto& binding) {
        return binding.second == owner;
      });
      if (was_his) nodes.push_back(node);
    }
    return nodes;
  }

 private:
  std::map<std::string, std::map<std::pair<int64_t, std::string>, std::string>> bindings_;
};

bool IsSubjects(const StatementQuery& query, const Owners& owners, const Entry& entry,
                const Posting& posting) {
  if (posting.account == SubjectAccount(query)) return true;
  const std::string node = NodeOfAccount(posting.account);
  if (node.empty()) return false;
  if (query.subject == StatementSubject::kNode) return node == query.name;
  return query.subject == StatementSubject::kOwner &&
         owners.At(node, entry.time_micros) == query.name;
}

uint64_t SaturatingSum(uint64_t a, uint64_t b) {
  return b > std::numeric_limits<uint64_t>::max() - a ? std::numeric_limits<uint64_t>::max()
                                                      : a + b;
}

void AddWork(const Entry& entry, StatementTotals& totals) {
  totals.tokens = SaturatingSum(totals.tokens, entry.tokens);
  totals.flops = SaturatingSum(totals.flops, entry.flops);
}

// One posting within the time asked for.
void AddToTotals(const StatementQuery& query, const Entry& entry, const Posting& posting,
                 StatementTotals& totals) {
  const bool escrow = absl::StartsWith(posting.account, kEscrowPrefix);
  switch (entry.kind) {
    case EntryKind::kPending:
      totals.earned += posting.amount;
      break;
    case EntryKind::kPost:
      if (escrow) break;
      totals.posted += posting.amount;
      AddWork(entry, totals);
      break;
    case EntryKind::kVoid:
      (escrow ? totals.voided : totals.penalties) -= posting.amount;
      break;
    case EntryKind::kPenalty:
      totals.penalties -= posting.amount;
      break;
    case EntryKind::kSettlement:
      // An owner's nodes' side of it is the other end of the same money.
      if (query.subject == StatementSubject::kNode) totals.settled -= posting.amount;
      if (posting.account == SubjectAccount(query) && query.subject == StatementSubject::kOwner) {
        totals.settled += posting.amount;
      }
      break;
    case EntryKind::kUsage:
      totals.used -= posting.amount;
      ++totals.usages;
      AddWork(entry, totals);
      break;
    default:
      break;
  }
}

const char* SubjectName(StatementSubject subject) {
  switch (subject) {
    case StatementSubject::kNode:
      return "node";
    case StatementSubject::kOwner:
      return "owner";
    case StatementSubject::kApiKey:
      return "api_key";
  }
  return "";
}

std::string TimeText(int64_t micros) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::FromUnixMicros(micros),
                          absl::UTCTimeZone());
}

std::string CsvField(absl::string_view text) {
  std::string field(text);
  if (!field.empty() && absl::StrContains("=+-@", field.substr(0, 1))) field.insert(0, "'");
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  return absl::StrCat("\"", absl::StrReplaceAll(field, {{"\"", "\"\""}}), "\"");
}

}  // namespace

Statement MakeStatement(const StatementQuery& query, absl::Span<const RecordedEntry> entries) {
  const Owners owners(entries);
  Statement statement{.query = query};
  if (query.subject == StatementSubject::kNode) statement.nodes = {query.name};
  if (query.subject == StatementSubject::kOwner) statement.nodes = owners.NodesOf(query.name);
  StatementTotals& totals = statement.totals;
  for (const RecordedEntry& recorded : entries) {
    const Entry& entry = recorded.entry;
    if (entry.time_micros >= query.to_micros) continue;
    for (const Posting& posting : entry.postings) {
      if (!IsSubjects(query, owners, entry, posting)) continue;
      const bool escrow = absl::StartsWith(posting.account, kEscrowPrefix);
      (escrow ? totals.in_escrow : totals.closing) += posting.amount;
      if (entry.time_micros < query.from_micros) {
        if (!escrow) totals.opening += posting.amount;
        continue;
      }
      AddToTotals(query, entry, posting, totals);
      statement.lines.push_back({entry, posting.account, posting.amount});
    }
  }
  const auto order = [](const StatementLine& line) {
    return std::tie(line.entry.time_micros, line.entry.key, line.account);
  };
  std::sort(statement.lines.begin(), statement.lines.end(),
            [&](const auto& a, const auto& b) { return order(a) < order(b); });
  return statement;
}

absl::StatusOr<Statement> ReadStatement(LedgerReader& reader, const StatementQuery& query) {
  const std::string account = SubjectAccount(query);
  std::set<std::string> accounts = {account};
  if (query.subject == StatementSubject::kNode) {
    accounts.insert(absl::StrCat(kEscrowPrefix, query.name));
  }
  const auto read = [&] {
    return reader.EntriesOf(std::vector<std::string>(accounts.begin(), accounts.end()));
  };
  ASSIGN_OR_RETURN(std::vector<RecordedEntry> entries, read());
  if (entries.empty()) {
    return absl::NotFoundError(absl::StrCat("the ledger has no entries of ", account));
  }
  if (query.subject == StatementSubject::kOwner) {
    for (const std::string& node : Owners(entries).NodesOf(query.name)) {
      accounts.insert(absl::StrCat(kNodePrefix, node));
      accounts.insert(absl::StrCat(kEscrowPrefix, node));
    }
    ASSIGN_OR_RETURN(entries, read());
  }
  return MakeStatement(query, entries);
}

nlohmann::json StatementJson(const Statement& statement) {
  const StatementTotals& totals = statement.totals;
  nlohmann::json lines = nlohmann::json::array();
  for (const StatementLine& line : statement.lines) {
    const Entry& entry = line.entry;
    nlohmann::json memo = nlohmann::json::parse(entry.memo, nullptr, /*allow_exceptions=*/false);
    if (memo.is_discarded()) memo = nlohmann::json::object();
    lines.push_back({{"time", TimeText(entry.time_micros)},
                     {"kind", KindName(entry.kind)},
                     {"key", entry.key},
                     {"about", entry.about},
                     {"account", line.account},
                     {"amount_micros", line.amount},
                     {"tokens", entry.tokens},
                     {"flops", entry.flops},
                     {"memo", std::move(memo)}});
  }
  const StatementQuery& query = statement.query;
  nlohmann::json json = {{SubjectName(query.subject), query.name},
                         {"nodes", statement.nodes},
                         {"totals",
                          {{"earned_micros", totals.earned},
                           {"posted_micros", totals.posted},
                           {"voided_micros", totals.voided},
                           {"penalties_micros", totals.penalties},
                           {"settled_micros", totals.settled},
                           {"used_micros", totals.used},
                           {"tokens", totals.tokens},
                           {"flops", totals.flops},
                           {"usages", totals.usages},
                           {"opening_micros", totals.opening},
                           {"closing_micros", totals.closing},
                           {"in_escrow_micros", totals.in_escrow}}},
                         {"lines", std::move(lines)}};
  json["from"] = TimeText(query.from_micros);
  json["to"] = query.to_micros == std::numeric_limits<int64_t>::max()
                   ? nlohmann::json()
                   : nlohmann::json(TimeText(query.to_micros));
  return json;
}

std::string StatementCsv(const Statement& statement) {
  std::string csv = "time,kind,key,about,account,amount_micros,tokens,flops,memo\r\n";
  for (const StatementLine& line : statement.lines) {
    const Entry& entry = line.entry;
    absl::StrAppend(&csv, TimeText(entry.time_micros), ",", KindName(entry.kind), ",",
                    CsvField(entry.key), ",", CsvField(entry.about), ",", CsvField(line.account),
                    ",", line.amount, ",", entry.tokens, ",", entry.flops, ",",
                    CsvField(entry.memo), "\r\n");
  }
  return csv;
}

std::string StatementText(const Statement& statement) {
  const StatementQuery& query = statement.query;
  const StatementTotals& totals = statement.totals;
  const bool open_end = query.to_micros == std::numeric_limits<int64_t>::max();
  std::string text = absl::StrCat(SubjectName(query.subject), " ", query.name, ", from ",
                                  TimeText(query.from_micros), open_end ? "" : " to ",
                                  open_end ? "" : TimeText(query.to_micros), ", in credits\n\n");
  const auto money = [&](absl::string_view name, Micros amount) {
    absl::StrAppendFormat(&text, "  %-36s %20s\n", name, FormatCredits(amount));
  };
  if (query.subject == StatementSubject::kApiKey) {
    money("used", totals.used);
    absl::StrAppendFormat(&text, "  %-36s %20d\n", "requests", totals.usages);
  } else {
    money("at the beginning", totals.opening);
    money("work done, pending first", totals.earned);
    money("proven and posted", totals.posted);
    money("voided", totals.voided);
    money("penalties", totals.penalties);
    money(query.subject == StatementSubject::kOwner ? "settled to the owner" : "settled",
          totals.settled);
    money("at the end", totals.closing);
    money("still pending at the end", totals.in_escrow);
  }
  absl::StrAppendFormat(&text, "  %-36s %20d\n", "tokens", totals.tokens);
  absl::StrAppendFormat(&text, "  %-36s %20.3f\n", "dense-reference GFLOP",
                        static_cast<double>(totals.flops) / 1e9);
  absl::StrAppendFormat(&text, "\n%-27s  %-10s %-32s %-32s %18s\n", "TIME", "KIND", "KEY",
                        "ACCOUNT", "CREDITS");
  for (const StatementLine& line : statement.lines) {
    absl::StrAppendFormat(&text, "%-27s  %-10s %-32s %-32s %18s\n",
                          TimeText(line.entry.time_micros), KindName(line.entry.kind),
                          line.entry.key, line.account, FormatCredits(line.amount));
  }
  return text;
}

}  // namespace efedllm
