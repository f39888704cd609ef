#include "coordinator/state_database.h"

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

const std::vector<std::string>& Migrations() {
  // Times are Unix seconds. Node ids are 16 hex digits: SQLite's integers are signed.
  static const std::vector<std::string> migrations = {
      R"sql(
        CREATE TABLE join_tokens (
          id          TEXT PRIMARY KEY,
          secret_hash BLOB NOT NULL UNIQUE,
          created     INTEGER NOT NULL,
          expires     INTEGER NOT NULL,  -- 0: never
          uses        INTEGER NOT NULL,  -- 0: any number
          used        INTEGER NOT NULL DEFAULT 0,
          revoked     INTEGER NOT NULL DEFAULT 0
        );
        CREATE TABLE enrolled_nodes (
          node                TEXT PRIMARY KEY,
          name                TEXT NOT NULL,
          first_seen          INTEGER NOT NULL,
          certificate_expires INTEGER NOT NULL
        );
        CREATE TABLE last_epoch (epoch INTEGER NOT NULL);
        INSERT INTO last_epoch VALUES (0);
      )sql",
      // The plan that served last, in one row or none; its stages; the nodes it was made for.
      R"sql(
        CREATE TABLE stored_plan (
          only                     INTEGER PRIMARY KEY CHECK (only = 1),
          epoch                    INTEGER NOT NULL,
          tokens_per_second        REAL NOT NULL,
          single_tokens_per_second REAL NOT NULL,
          prompt_tokens_per_second REAL NOT NULL
        );
        CREATE TABLE stored_stages (
          chain       INTEGER NOT NULL,
          position    INTEGER NOT NULL,
          node        TEXT NOT NULL,
          first_layer INTEGER NOT NULL,
          last_layer  INTEGER NOT NULL,
          relayed     INTEGER NOT NULL,
          kv_tokens   INTEGER NOT NULL,  -- of the chain
          PRIMARY KEY (chain, position)
        );
        CREATE TABLE stored_nodes (position INTEGER PRIMARY KEY, node TEXT NOT NULL);
        CREATE TABLE drained_nodes (node TEXT PRIMARY KEY, since INTEGER NOT NULL);
      )sql",
      // Whom nodes work for; empty in a token that leaves it to the node.
      R"sql(
        ALTER TABLE join_tokens ADD COLUMN owner TEXT NOT NULL DEFAULT '';
        ALTER TABLE enrolled_nodes ADD COLUMN owner TEXT NOT NULL DEFAULT 'unowned';
      )sql",
  };
  return migrations;
}

absl::Status CheckIntegrity(Database& database) {
  return database.Transact([](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows, sql.Query("PRAGMA quick_check(1)"));
    const std::string found = rows.empty() ? "no answer" : SqlText(rows[0][0]);
    return found == "ok" ? absl::OkStatus() : absl::DataLossError(found);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Database>> OpenStateDatabase(const std::string& state_dir) {
  const std::string path = state_dir + "/coordinator.db";
  absl::StatusOr<std::unique_ptr<Database>> database = Database::Open(path, Migrations());
  // It is small: all of it is looked at.
  const absl::Status checked = database.ok() ? CheckIntegrity(**database) : database.status();
  if (absl::IsDataLoss(checked)) {
    return absl::DataLossError(absl::StrCat(
        path, " is damaged (", checked.message(), "): restore it from a backup; or move it away, ",
        "and drains, join tokens and the list of nodes are lost, but no worker has to join again"));
  }
  RETURN_IF_ERROR(checked);
  return database;
}

absl::StatusOr<Epoch> NextEpoch(Database& database) {
  Epoch epoch;
  RETURN_IF_ERROR(database.Transact([&](Transaction& sql) -> absl::Status {
    RETURN_IF_ERROR(sql.Execute("UPDATE last_epoch SET epoch = epoch + 1").status());
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows, sql.Query("SELECT epoch FROM last_epoch"));
    if (rows.size() != 1) return absl::DataLossError("the state database has no last epoch");
    epoch.v = static_cast<uint64_t>(SqlInt(rows[0][0]));
    return absl::OkStatus();
  }));
  return epoch;
}

absl::Status RecordEnrolment(Database& database, const EnrolledNode& node) {
  return database.Transact([&](Transaction& sql) {
    return sql
        .Execute(
            "INSERT INTO enrolled_nodes (node, name, first_seen, certificate_expires, owner) "
            "VALUES (?1, ?2, ?3, ?4, iif(?5 = '', 'unowned', ?5)) ON CONFLICT (node) DO UPDATE SET "
            "name = iif(?2 = '', name, ?2), certificate_expires = ?4, "
            "owner = iif(?5 = '', owner, ?5)",
            {NodeName(node.node), node.name, absl::ToUnixSeconds(node.first_seen),
             absl::ToUnixSeconds(node.certificate_expires), node.owner})
        .status();
  });
}

absl::StatusOr<std::vector<EnrolledNode>> ListEnrolledNodes(Database& database) {
  std::vector<EnrolledNode> nodes;
  RETURN_IF_ERROR(database.Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                     sql.Query("SELECT node, name, first_seen, certificate_expires, owner "
                               "FROM enrolled_nodes ORDER BY first_seen, node"));
    for (const SqlRow& row : rows) {
      const std::optional<NodeId> node = ParseNodeName(SqlText(row[0]));
      if (!node) return absl::DataLossError("the state database has a node without an id");
      nodes.push_back({*node, SqlText(row[1]), absl::FromUnixSeconds(SqlInt(row[2])),
                       absl::FromUnixSeconds(SqlInt(row[3])), SqlText(row[4])});
    }
    return absl::OkStatus();
  }));
  return nodes;
}

absl::Status MarkDrained(Database& database, NodeId node, absl::Time since) {
  return database.Transact([&](Transaction& sql) {
    return sql
        .Execute("INSERT INTO drained_nodes VALUES (?, ?) ON CONFLICT (node) DO NOTHING",
                 {NodeName(node), absl::ToUnixSeconds(since)})
        .status();
  });
}

absl::Status UnmarkDrained(Database& database, NodeId node) {
  return database.Transact([&](Transaction& sql) {
    return sql.Execute("DELETE FROM drained_nodes WHERE node = ?", {NodeName(node)}).status();
  });
}

absl::StatusOr<std::vector<DrainedNode>> ListDrainedNodes(Database& database) {
  std::vector<DrainedNode> nodes;
  RETURN_IF_ERROR(database.Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                     sql.Query("SELECT node, since FROM drained_nodes ORDER BY since, node"));
    for (const SqlRow& row : rows) {
      const std::optional<NodeId> node = ParseNodeName(SqlText(row[0]));
      if (!node) return absl::DataLossError("the state database drained a node without an id");
      nodes.push_back({*node, absl::FromUnixSeconds(SqlInt(row[1]))});
    }
    return absl::OkStatus();
  }));
  return nodes;
}

}  // namespace efedllm
