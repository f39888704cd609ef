// Statements: what a node, an owner or an API key did and got between two times. Pure functions of
// entries, in whatever order these come.
#ifndef EFEDLLM_INCENTIVE_STATEMENT_H_
#define EFEDLLM_INCENTIVE_STATEMENT_H_

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "incentive/ledger_entry.h"
#include "incentive/ledger_reader.h"

namespace efedllm {

enum class StatementSubject { kNode, kOwner, kApiKey };

struct StatementQuery {
  StatementSubject subject = StatementSubject::kOwner;
  std::string name;  // of a node: 16 hex digits; an owner; an API key's id
  // Since 1970: [from, to).
  int64_t from_micros = 0;
  int64_t to_micros = std::numeric_limits<int64_t>::max();
};

struct StatementTotals {
  Micros earned = 0;     // pay of pending entries: what was done
  Micros posted = 0;     // of it or of earlier work: what was proven
  Micros voided = 0;     // what was disproven or lost
  Micros penalties = 0;  // that nodes paid
  Micros settled = 0;    // of nodes: that went to owners; of an owner: that it got
  Micros used = 0;       // of an API key: what it owes
  uint64_t tokens = 0;   // of posted work; of an API key: of its usage
  uint64_t flops = 0;    // likewise; saturates
  uint64_t usages = 0;   // requests
  Micros opening = 0;    // what its accounts had at the beginning (of a node: without escrow)
  Micros closing = 0;    // and at the end
  Micros in_escrow = 0;  // pending at the end

  friend bool operator==(const StatementTotals&, const StatementTotals&) = default;
};

struct StatementLine {
  Entry entry;
  std::string account;  // the posting of it that is the subject's
  Micros amount = 0;

  friend bool operator==(const StatementLine&, const StatementLine&) = default;
};

struct Statement {
  StatementQuery query;
  std::vector<std::string> nodes;  // whose work it is of; of an owner: that were its at some time
  StatementTotals totals;
  std::vector<StatementLine> lines;  // by time, key and account
};

// entries: at least all with postings on the subject's accounts, and of an owner's nodes; others
// are passed over. An owner has the work of a node from the entry that bound it to him to the one
// that bound it to another.
Statement MakeStatement(const StatementQuery& query, absl::Span<const RecordedEntry> entries);

// The same of a ledger. NotFound: it knows no such node, owner or key.
absl::StatusOr<Statement> ReadStatement(LedgerReader& reader, const StatementQuery& query);

// Totals, lines with their memos as JSON; amounts in micro-credits.
nlohmann::json StatementJson(const Statement& statement);
// One line per posting with a heading (RFC 4180); amounts in micro-credits. A text that a
// spreadsheet would take for a formula gets a ' before it.
std::string StatementCsv(const Statement& statement);
// For people.
std::string StatementText(const Statement& statement);

}  // namespace efedllm

#endif  // EFEDLLM_INCENTIVE_STATEMENT_H_
