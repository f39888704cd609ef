#include "coordinator/reply_store.h"

#include <cstdio>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

const std::vector<std::string>& Migrations() {
  static const std::vector<std::string> migrations = {
      R"sql(
        CREATE TABLE replies (
          id          TEXT PRIMARY KEY,
          finished    INTEGER NOT NULL,  -- Unix seconds
          bytes       INTEGER NOT NULL,  -- of the body
          fingerprint TEXT NOT NULL,
          stream      INTEGER NOT NULL,
          body        BLOB NOT NULL
        );
      )sql",
  };
  return migrations;
}

}  // namespace

void ReplyStore::Index::Insert(const std::string& id, const Entry& entry) {
  Erase(id);
  entries[id] = entry;
  by_age.emplace(entry.finished, id);
  bytes += entry.bytes;
}

void ReplyStore::Index::Erase(const std::string& id) {
  const auto it = entries.find(id);
  if (it == entries.end()) return;
  by_age.erase({it->second.finished, id});
  bytes -= it->second.bytes;
  entries.erase(it);
}

ReplyStore::ReplyStore(std::unique_ptr<Database> database, const Clock& clock,
                       const ReplyStoreLimits& limits)
    : database_(std::move(database)), clock_(clock), limits_(limits) {}

absl::StatusOr<std::unique_ptr<ReplyStore>> ReplyStore::OpenAsItIs(const std::string& path,
                                                                   const Clock& clock,
                                                                   const ReplyStoreLimits& limits) {
  ASSIGN_OR_RETURN(auto database, Database::Open(path, Migrations()));
  std::unique_ptr<ReplyStore> store(new ReplyStore(std::move(database), clock, limits));
  RETURN_IF_ERROR(store->ReadIndex());
  RETURN_IF_ERROR(store->RemoveExpired());
  return store;
}

absl::StatusOr<std::unique_ptr<ReplyStore>> ReplyStore::Open(const std::string& path,
                                                             const Clock& clock,
                                                             const ReplyStoreLimits& limits) {
  auto store = OpenAsItIs(path, clock, limits);
  if (!absl::IsDataLoss(store.status())) return store;
  spdlog::warn("the stored replies are lost, requests that are sent again will run again: {}",
               std::string(store.status().message()));
  for (const char* suffix : {"", "-wal", "-shm"}) std::remove((path + suffix).c_str());
  return OpenAsItIs(path, clock, limits);
}

absl::Status ReplyStore::ReadIndex() {
  Index index;
  const absl::Status read = database_->Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                     sql.Query("SELECT id, finished, bytes FROM replies"));
    for (const SqlRow& row : rows) {
      index.Insert(SqlText(row[0]), {SqlInt(row[1]), static_cast<uint64_t>(SqlInt(row[2]))});
    }
    return absl::OkStatus();
  });
  absl::MutexLock lock(&mu_);
  index_ = std::move(index);
  return read;
}

// A clock that was set back leaves replies of the future, which nothing else would remove.
bool ReplyStore::IsExpired(int64_t finished) const {
  const absl::Duration age = clock_.WallNow() - absl::FromUnixSeconds(finished);
  return age > limits_.age || -age > limits_.age;
}

bool ReplyStore::Has(const std::string& id) const {
  absl::MutexLock lock(&mu_);
  const auto it = index_.entries.find(id);
  return it != index_.entries.end() && !IsExpired(it->second.finished);
}

absl::StatusOr<std::optional<StoredReply>> ReplyStore::Load(const std::string& id) {
  if (!Has(id)) return std::nullopt;
  std::optional<StoredReply> reply;
  RETURN_IF_ERROR(database_->Transact([&](Transaction& sql) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<SqlRow> rows,
                     sql.Query("SELECT fingerprint, stream, body FROM replies WHERE id = ?", {id}));
    if (rows.empty()) return absl::OkStatus();
    reply.emplace(StoredReply{.id = id,
                              .fingerprint = SqlText(rows[0][0]),
                              .stream = SqlInt(rows[0][1]) != 0,
                              .pieces = absl::StrSplit(SqlText(rows[0][2]), '\n')});
    return absl::OkStatus();
  }));
  return reply;
}

std::vector<std::string> ReplyStore::TakeSurplus() {
  std::vector<std::string> surplus;
  while (!index_.entries.empty()) {
    const auto [oldest, id] = *index_.by_age.begin();
    const auto [newest, newest_id] = *index_.by_age.rbegin();
    const bool full = index_.entries.size() > limits_.replies || index_.bytes > limits_.bytes;
    if (!full && !IsExpired(oldest) && !IsExpired(newest)) break;
    surplus.push_back(full || IsExpired(oldest) ? id : newest_id);
    index_.Erase(surplus.back());
  }
  return surplus;
}

absl::Status ReplyStore::Add(const std::vector<StoredReply>& replies) {
  const int64_t now = absl::ToUnixSeconds(clock_.WallNow());
  std::vector<std::string> bodies;
  bodies.reserve(replies.size());
  for (const StoredReply& reply : replies) bodies.push_back(absl::StrJoin(reply.pieces, "\n"));
  std::vector<std::string> surplus;
  {
    absl::MutexLock lock(&mu_);
    for (size_t i = 0; i < replies.size(); ++i) {
      index_.Insert(replies[i].id, {now, bodies[i].size()});
    }
    surplus = TakeSurplus();
  }
  if (replies.empty() && surplus.empty()) return absl::OkStatus();
  const absl::Status stored = database_->Transact([&](Transaction& sql) -> absl::Status {
    for (size_t i = 0; i < replies.size(); ++i) {
      const StoredReply& reply = replies[i];
      RETURN_IF_ERROR(sql.Execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)",
                                  {reply.id, now, static_cast<int64_t>(bodies[i].size()),
                                   reply.fingerprint, int64_t{reply.stream}, bodies[i]})
                          .status());
    }
    for (const std::string& id : surplus) {
      RETURN_IF_ERROR(sql.Execute("DELETE FROM replies WHERE id = ?", {id}).status());
    }
    return absl::OkStatus();
  });
  // What could not be written is not there; what could not be removed still is.
  if (!stored.ok()) ReadIndex().IgnoreError();
  return stored;
}

size_t ReplyStore::size() const {
  absl::MutexLock lock(&mu_);
  return index_.entries.size();
}

}  // namespace efedllm
